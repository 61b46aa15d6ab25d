"""The process that looks at images: it holds the inspector, decodes and judges, and knows nothing of HTTP.

    python -m steelshift.serving.worker '{"folder": F, "runtime": R, "precision": P, "threads": N, "pixels": M}'

Batches come on standard input; the first frame on standard output says what it holds, or why it holds nothing, and
one more follows for each batch. It ends with its standard input, so it never outlives the server.
"""

import base64
import dataclasses
import hashlib
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from steelshift.data.decode import MAX_PIXELS, Unreadable, decode
from steelshift.data.sources import Found, Taken
from steelshift.errors import ArtifactRefused, SteelshiftError, UsageError
from steelshift.inspection.opening import fingerprint, open_inspector, place_of
from steelshift.inspection.rows import Inspected, inspect_images, record_of
from steelshift.inspection.specification import Judge
from steelshift.memory import return_memory
from steelshift.messages import say
from steelshift.report.pictures import heat_layer
from steelshift.serving import frames

LARGEST_PICTURE = 640
"""Pixels of the longer side of what a page shows."""
HEAT_SIDE = 160
"""Pixels of a heat map's sides; what draws it stretches it over the picture."""


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the server says when to end
        signal.signal(number, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to the log and not between the frames
    options = json.loads(sys.argv[1])
    return_memory()
    folder = Path(options["folder"])
    try:
        mark = _marked(folder)
        inspector = open_inspector(folder, options["runtime"], options["precision"], options["threads"])
        heat = _warm(inspector, folder)
        if mark is None or _marked(folder) != mark:
            raise ArtifactRefused("inspector_broken", path=folder, why="it changed while it was read")
    except SteelshiftError as error:
        fields = {key: str(value) for key, value in error.fields.items()}
        _say(replies, {"refused": type(error).__name__, "key": error.key, "fields": fields})
        return
    facts = {"heat_maps": heat, "weights": inspector.identity, **dataclasses.asdict(inspector.specification)}
    _say(replies, {"inspector": mark, "facts": facts})
    while (batch := frames.read(sys.stdin.buffer)) is not None:
        message, contents = batch
        os.environ["STEELSHIFT_LANG"] = message["language"]  # for all threads: there is one batch at a time
        given = zip(message["names"], contents, strict=True)
        images = [image_of(name, content, options["pixels"]) for name, content in given]
        pictures = message["pictures"]
        found = inspect_images(inspector, images, heat=pictures and heat)
        _say(replies, {"answers": [_answer(inspected, pictures) for inspected in found]})


def _say(replies: BinaryIO, message: dict[str, Any]) -> None:
    replies.write(frames.framed(message))
    replies.flush()


def _marked(folder: Path) -> str | None:
    try:
        return fingerprint(folder)
    except OSError:
        return None


def _warm(inspector: Judge, folder: Path) -> bool:
    """Look at the golden examples, so that all graphs are opened while the folder is known to be whole.

    Returns whether it draws heat maps.
    """
    golden = sorted((place_of(folder) / "golden").glob("*.png"))
    images = [image_of("", path.read_bytes(), MAX_PIXELS) for path in golden]
    list(inspect_images(inspector, images))
    try:
        list(inspect_images(inspector, images, heat=True))
    except UsageError:
        return False
    return True


def image_of(name: str, content: bytes, pixels: int) -> Found:
    """An image that lies in no file."""

    def take(bit_depth: int | None) -> Taken:
        if not content:
            return Taken(None, None, say("empty_file"))
        digest = hashlib.sha256(content).hexdigest()
        try:
            return Taken(digest, decode(content, bit_depth=bit_depth, max_pixels=pixels), content=content)
        except Unreadable as error:
            return Taken(digest, None, str(error), content)

    return Found(name, take, len(content))


def _answer(inspected: Inspected, pictures: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"row": record_of(inspected.row)}
    if pictures and inspected.taken.decoded is not None:
        answer["picture"] = _picture(inspected.taken.decoded.pixels)
        answer["heat_map"] = None if inspected.heat is None else _heat_map(inspected.heat)
    return answer


def _picture(pixels: np.ndarray) -> str:
    """What the inspector saw of uint8 (H, W, C), as a data URI: deep, turned and odd files as eight bits, upright."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    return _data_uri(image, "JPEG", quality=85)


def _heat_map(heat: np.ndarray) -> str:
    """Heat, float (h, w) in [0, 1], to be stretched over the picture: colours that cover more where it is hotter."""
    grey = Image.fromarray(np.rint(255 * heat).astype(np.uint8)).resize(
        (HEAT_SIDE, HEAT_SIDE), Image.Resampling.BILINEAR
    )
    return _data_uri(Image.fromarray(heat_layer(np.asarray(grey))), "PNG")


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode("ascii")


if __name__ == "__main__":
    main()
