"""SHA256SUMS of a folder: whether its files are those that were written."""

import hashlib
from pathlib import Path

from steelshift.files import write_text

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """List every file of the folder with its hash. Raises RunFailed."""
    sums = [f"{sha256(folder / name)}  {name}" for name in _contents(folder)]
    write_text(folder / SUMS, "\n".join(sums) + "\n")


def check_sums(folder: Path) -> None:
    """Raises ValueError or OSError where a file was changed, added or lost."""
    listed = dict(reversed(line.split("  ", 1)) for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
    if set(listed) != set(_contents(folder)):
        raise ValueError("its files are not those that SHA256SUMS lists")
    for name, digest in listed.items():
        if sha256(folder / name) != digest:
            raise ValueError(f"{name} is not what SHA256SUMS says")


def sha256(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contents(folder: Path) -> list[str]:
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in files if name != SUMS and not name.endswith(".tmp"))
