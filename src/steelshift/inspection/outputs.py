"""What `inspect` writes beside its table: heat maps, and copies of the images that a person should look at."""

import csv
import io
import re
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

from steelshift.data.decode import picture_of
from steelshift.files import append_text, write_atomically, write_bytes
from steelshift.inspection.rows import ImageRow, Inspected
from steelshift.inspection.sharpen import sharpen
from steelshift.report.pictures import overlay

LARGEST = 512
"""Pixels of the longer side of a heat map."""
REASONS = "reasons.csv"
_REASONS = ("file", "path", "decision", "class", "p", "reason", "error")


def heat_picture(inspected: Inspected) -> bytes:
    """The image with its heat laid over, as JPEG."""
    picture = picture_of(inspected.taken.decoded.pixels).convert("L")
    picture.thumbnail((LARGEST, LARGEST))
    grey = np.asarray(picture)
    file = io.BytesIO()
    drawn = overlay(grey, np.rint(sharpen(inspected.heat, grey) * 255).astype(np.uint8))
    Image.fromarray(drawn).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_heat_map(picture: bytes, row: ImageRow, folder: Path, *, lasting: bool) -> Path:
    """A picture under the id of its image. lasting: as of `write_atomically`. Raises RunFailed."""
    path = folder / f"{_plain(row.id)}.jpg"
    write_atomically(path, lambda file: file.write(picture) and None, lasting=lasting)
    return path


def is_defect(row: ImageRow) -> bool:
    """Whether the answer is another class than `qualified`."""
    return row.class_ is not None and row.class_ != "qualified"


def copy_for_review(inspected: Inspected, folder: Path) -> None:
    """Copy an image that was not accepted, with a line of reasons; what cannot be read has the line alone.

    The copy's name is made of its hash and the letters of its own name, so that no name leads out of the folder.
    Raises RunFailed.
    """
    row, name = inspected.row, ""
    if row.decision != "unreadable":
        content = inspected.taken.content
        suffix = Path(row.path.rpartition("!")[2]).suffix if content is not None else ".png"
        if content is None:  # a frame of a video
            file = io.BytesIO()
            picture_of(inspected.taken.decoded.pixels).save(file, "PNG")
            content = file.getvalue()
        name = f"{row.decision}/{_plain(row.id)[:80]}-{safe_name(row.path, suffix)}"
        write_bytes(folder / name, content)
    text = io.StringIO()
    writer = csv.DictWriter(text, _REASONS, lineterminator="\n")
    if not (folder / REASONS).exists():
        writer.writeheader()
    known = {"path": row.path, "decision": row.decision, "class": row.class_, "p": row.p, "reason": row.reason}
    writer.writerow({"file": name, "error": row.error, **known})
    append_text(folder / REASONS, text.getvalue())


def safe_name(path: str, suffix: str) -> str:
    """Letters and digits of any script, and - _ ., of the last part of a path: at most 60, never a hidden file."""
    last = re.split(r"[/\\!]", path)[-1].removesuffix(suffix)
    last = unicodedata.normalize("NFC", last)
    kept = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in last)
    ending = re.sub(r"[^A-Za-z0-9.]", "", suffix)[:8]
    return (kept[:60] or "image") + ending


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-f]+", "-", name)
