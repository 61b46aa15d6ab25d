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
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from steelshift.data.decode import MAX_PIXELS, Unreadable, decode, picture_of
from steelshift.data.sources import Found, Taken
from steelshift.errors import ArtifactRefused, SteelshiftError, UsageError
from steelshift.inspection.opening import fingerprint, open_inspector, place_of
from steelshift.inspection.rows import Inspected, judged_in_parts, limits_of, record_of
from steelshift.inspection.specification import Head, Judge
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
    heads = inspector.specification.heads
    pool = ThreadPoolExecutor(options["threads"]) if options["threads"] > 1 else None
    while (batch := frames.read(sys.stdin.buffer)) is not None:
        message, contents = batch
        os.environ["STEELSHIFT_LANG"] = message["language"]  # for all threads: there is one batch at a time
        images, pictures = list(zip(message["names"], contents, strict=True)), message["pictures"]
        for part in inspected(inspector, images, options["pixels"], pool, heat and pictures):
            _say(replies, {"answers": [_answer(each, heads, pictures) for each in part]})


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
    golden = [("", path.read_bytes()) for path in sorted((place_of(folder) / "golden").glob("*.png"))]
    list(inspected(inspector, golden))
    if inspector.specification.heads:  # each looks elsewhere
        return False
    try:
        list(inspected(inspector, golden, heat=True))
    except UsageError:
        return False
    return True


def inspected(
    inspector: Judge,
    images: Sequence[tuple[str, bytes]],
    pixels: int = MAX_PIXELS,
    pool: Executor | None = None,
    heat: bool = False,
) -> Iterator[list[Inspected]]:
    """What `inspect` says of images that lie in no file, each a name and bytes.

    They are looked at together, in parts of no more than `pixels` in all or of one image. pool: decodes several at a
    time; None decodes one after the other, without the cost of threads.
    """

    def take(image: tuple[str, bytes]) -> tuple[Found, Taken, float]:
        began = time.perf_counter()
        name, content = image
        taken = _taken(content, inspector.specification.bit_depth, pixels)
        return Found(name, lambda _: taken), taken, time.perf_counter() - began

    each = (map if pool is None else pool.map)(take, images)
    return judged_in_parts(inspector, each, pixels, limits_of(inspector), heat)


def _taken(content: bytes, bit_depth: int | None, pixels: int) -> Taken:
    if not content:
        return Taken(None, None, say("empty_file"))
    digest = hashlib.sha256(content).hexdigest()
    try:
        return Taken(digest, decode(content, bit_depth=bit_depth, max_pixels=pixels))
    except Unreadable as error:
        return Taken(digest, None, str(error))


def _answer(found: Inspected, heads: Sequence[Head], pictures: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"row": record_of(found.row, heads)}
    if pictures and found.taken.decoded is not None:
        answer["picture"] = _picture(found.taken.decoded.pixels)
        answer["heat_map"] = None if found.heat is None else _heat_map(found.heat)
    return answer


def _picture(pixels: np.ndarray) -> str:
    """What the inspector saw of uint8 (H, W, C), as a data URI: deep, turned and odd files as eight bits, upright."""
    image = picture_of(pixels)
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
