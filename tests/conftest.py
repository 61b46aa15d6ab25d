"""What several rooms' tests begin from."""

from pathlib import Path

import pytest

from lines import tiny_lines


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pair of lines on disk, of the module's own."""
    return tiny_lines(tmp_path_factory.mktemp("data"))
