"""Two tiny synthetic lines on disk, and a configuration that trains on them in seconds."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steelshift.data.camera import SHIFTS
from steelshift.data.synthetic import write_lines
from steelshift.training import loop
from steelshift.training.config import Config


def tiny_lines(folder: Path, images: int = 84) -> Path:
    """folder/lines/source and folder/lines/target, 200 px, seven classes."""
    write_lines(folder / "lines", shift=SHIFTS["mild"], images=images, seed=3)
    return folder / "lines"


def tiny_config(lines: Path, out: Path, **options: Any) -> Config:
    """A run of a few steps on 64 pixels."""
    defaults = {
        "source": (lines / "source",),
        "target": (lines / "target",),
        "method": "iadsa",
        "size": 64,
        "batch": 8,
        "steps": 6,
        "pretrain_steps": 4,
        "save_every": 2,
        "candidates": 3,
        "oracle": False,
    }
    return Config(**(defaults | options), out=out)


@contextmanager
def asked_to_stop(phase: str, step: int) -> Iterator[None]:
    """Training inside is asked to stop in this step of a phase, as SIGTERM asks; the signal itself could end the
    process that tests."""
    asked: list[int] = []
    original = loop._step

    @contextmanager
    def requests() -> Iterator[list[int]]:
        yield asked

    def stepping(*arguments: Any) -> Any:
        if (arguments[0].name, arguments[-1].step) == (phase, step):
            asked.append(signal.SIGTERM)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "stop_requests", requests)
        patched.setattr(loop, "_step", stepping)
        yield
