"""Images of any length, read some rows at a time.

What a file holds row by row as it is (BMP and TIFF without compression) is read in pieces, however long it is. Any
other format is decoded whole, within the limits below. Nothing is decompressed in pieces, so a small file never becomes
a large image.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import BmpImagePlugin, TiffImagePlugin

from steelshift.data.decode import MAX_PIXELS, MIN_SIDE, Unreadable, declared_depth, decode, read_bytes, to_8_bits
from steelshift.data.table import Place

WHOLE_PIXELS = 100_000_000
"""Most pixels of a strip that has to be decoded whole: 300 MB in grey at its peak, three times as much in colour."""
BAND_PIXELS = MAX_PIXELS
"""Most pixels that are asked for at once."""
_AT_ONCE = 1 << 20
_KINDS: dict[str, tuple[str, int]] = {
    "L": ("u1", 1), "RGB": ("u1", 3), "BGR": ("u1", 3), "I;16": ("<u2", 1), "I;16B": (">u2", 1),
}  # fmt: skip
_PLUGINS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"BM": BmpImagePlugin.BmpImageFile,
    b"II": TiffImagePlugin.TiffImageFile,
    b"MM": TiffImagePlugin.TiffImageFile,
}


@dataclass(frozen=True)
class Strip:
    """An image whose rows are read when they are asked for."""

    id: str
    """sha256 of the file, with the crop where there is one."""
    width: int
    height: int
    bit_depth: int
    whole: bool
    """Whether all of it is in memory."""
    read: Callable[[int, int], np.ndarray]
    """Rows from `top` to before `bottom`: uint8 (bottom - top, width, C), C = 1 or 3. Raises Unreadable."""


@dataclass(frozen=True)
class _Rows:
    """How rows lie in a file."""

    file: BinaryIO
    offsets: np.ndarray
    """int64 (height,), where each row begins."""
    width: int
    kind: str
    """Pillow's name of how a pixel is stored."""

    def read(self, top: int, bottom: int) -> np.ndarray:
        """(bottom - top, width, C) as stored."""
        type_, channels = _KINDS[self.kind]
        values = np.empty((bottom - top, self.width, channels), type_)
        length = values[0].nbytes
        for place, offset in enumerate(self.offsets[top:bottom].tolist()):
            try:
                self.file.seek(offset)
                found = self.file.readinto(memoryview(values[place]).cast("B"))
            except OSError as error:
                raise _cannot_open(error) from error
            if found != length:
                raise Unreadable("broken_image", why="the file ends before its rows do")
        return values[..., ::-1] if self.kind == "BGR" else values


@contextmanager
def open_strip(place: Place, *, bit_depth: int | None = None, max_pixels: int = WHOLE_PIXELS) -> Iterator[Strip]:
    """Open an image, or the part of one that `place` means.

    bit_depth: as for `decode`. max_pixels: of what has to be decoded whole. Raises Unreadable.
    """
    try:
        if not place.path.is_file():
            raise Unreadable("not_a_file")
        file = place.path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _cannot_open(error) from error
    with file:
        try:
            rows = _rows(file, place.path)
            strip = _decoded(place.path, bit_depth, max_pixels) if rows is None else _in_rows(rows, bit_depth)
        except OSError as error:
            raise _cannot_open(error) from error
        yield _cropped(strip, place)


def _cannot_open(error: Exception) -> Unreadable:
    return Unreadable("cannot_open", why=" ".join(str(error).split())[:160])


def _decoded(path: Path, bit_depth: int | None, max_pixels: int) -> Strip:
    digest, content = read_bytes(path)
    found = decode(content, bit_depth=bit_depth, max_pixels=max_pixels)
    height, width = found.pixels.shape[:2]
    return Strip(digest, width, height, found.bit_depth, True, lambda top, bottom: found.pixels[top:bottom])


def _rows(file: BinaryIO, path: Path) -> _Rows | None:
    """How the rows of an open file lie, None where they don't lie there as they are or it is too broken to say.

    The plugins read headers alone. Pillow's own limit on pixels is left aside on purpose: it guards against what small
    files decompress to, and here each pixel asked for has to be in the file.
    """
    plugin = _PLUGINS.get(file.read(2))
    file.seek(0)
    if plugin is None:
        return None
    try:
        image = plugin(file)
        width, height = image.size
        upright = getattr(image, "tag_v2", {}).get(274, 1) == 1
        size = path.stat().st_size
        if min(width, height) < MIN_SIDE or width * height > size or not upright or "transparency" in image.info:
            return None
        offsets = np.full(height, -1, np.int64)
        kinds = set()
        for codec, (left, top, right, bottom), offset, (kind, stride, direction) in image.tile:
            type_, channels = _KINDS[kind]
            length = width * channels * np.dtype(type_).itemsize
            if codec != "raw" or (left, right) != (0, width) or direction not in (1, -1):
                return None
            kinds.add(kind)
            offsets[top:bottom] = offset + np.arange(bottom - top)[::direction] * (stride or length)
        if len(kinds) != 1 or offsets.min() < 0 or offsets.max() + length > size:
            return None
    except Exception:  # a parser of untrusted bytes; `decode` will say what is wrong
        return None
    return _Rows(file, offsets, width, kinds.pop())


def _in_rows(rows: _Rows, bit_depth: int | None) -> Strip:
    rows.file.seek(0)
    digest = hashlib.file_digest(rows.file, "sha256").hexdigest()
    height = len(rows.offsets)
    if not rows.kind.startswith("I"):
        return Strip(digest, rows.width, height, 8, False, lambda top, bottom: _grey_if_grey(rows.read(top, bottom)))
    declared = None
    if bit_depth is None:
        rows.file.seek(0)
        declared = declared_depth(TiffImagePlugin.TiffImageFile(rows.file), b"")
    depth = bit_depth or declared or 12
    step = max(1, _AT_ONCE // rows.width)
    if bit_depth is None and any(
        int(rows.read(top, min(top + step, height)).max()) >= 1 << depth for top in range(0, height, step)
    ):
        depth = 16
    return Strip(digest, rows.width, height, depth, False, lambda top, bottom: to_8_bits(rows.read(top, bottom), depth))


def _grey_if_grey(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[2] == 3 and (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        return pixels[..., :1]
    return pixels


def _cropped(strip: Strip, place: Place) -> Strip:
    if place.crop is None:
        return strip
    x, y, width, height = place.crop
    if x + width > strip.width or y + height > strip.height:
        crop = " ".join(map(str, place.crop))
        raise Unreadable("crop_outside", crop=crop, width=strip.width, height=strip.height)

    def read(top: int, bottom: int) -> np.ndarray:
        return strip.read(y + top, y + bottom)[:, x : x + width]

    return Strip(place.named(strip.id), width, height, strip.bit_depth, strip.whole, read)
