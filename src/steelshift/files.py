"""Writing files so that a reader finds the old one or the new one, whole, and never anything between."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import yaml

from steelshift.errors import RunFailed, UsageError


class _Once(yaml.SafeLoader):
    """Takes no key twice, not as 1 and "1" either: the first would be forgotten."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is there twice", node.start_mark)
        return node


class _Words(_Once):
    """Leaves every value as it is written: 01 stays 01, and no stays no."""

    yaml_implicit_resolvers: ClassVar = {}


def read_yaml(path: Path) -> Any:
    """A YAML file of settings. Raises OSError, UnicodeDecodeError, yaml.YAMLError."""
    return yaml.load(Path(path).read_text(encoding="utf-8"), _Once)


def read_words(path: Path) -> Any:
    """A YAML file of names, which are all text. Raises as `read_yaml`."""
    return yaml.load(Path(path).read_text(encoding="utf-8"), _Words)


@contextmanager
def explain_full_or_readonly(path: Path) -> Iterator[None]:
    """Turn what the system says of a full disk or a read-only folder into a sentence."""
    try:
        yield
    except OSError as error:
        raise RunFailed("cannot_write", path=path, why=error.strerror or str(error)) from error


def write_atomically(path: Path, fill: Callable[[BinaryIO], None], *, lasting: bool = True) -> None:
    """Write through a temporary neighbour: fill, fsync, rename, fsync of the folder. Raises RunFailed.

    lasting: whether a power cut right after may not take it back; without, nothing is synced.
    """
    temporary = path.with_name(path.name + ".tmp")
    with explain_full_or_readonly(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                fill(file)
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
            if lasting:
                sync_folder(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def keep_inputs(out: Path, inputs: Iterable[Path]) -> None:
    """Raises UsageError where `out` is one of the files that are read."""
    if out.resolve() in (path.resolve() for path in inputs):
        raise UsageError("output_is_input", path=out)


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content) and None)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def as_csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Rows that lack a column leave it empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def append_text(path: Path, content: str) -> None:
    """Add to the end of a file and sync it. Raises RunFailed."""
    with explain_full_or_readonly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` last; systems that cannot open folders do without."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except (OSError, AttributeError):
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a file for this process alone while the context lasts; the system lets go of it whatever ends the process.

    Yields False at once where another process holds it and wait is False. Systems without such locks do without.
    """
    with explain_full_or_readonly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except ImportError:
            pass
        yield True
