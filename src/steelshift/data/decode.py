"""Bytes of an image file in, grey or colour uint8 pixels out: safe, exact, without torch.

The format is found by content, never by name. 12 and 16 bit are scaled, not clipped; EXIF orientation is applied;
alpha is laid over white; palettes and CMYK become RGB; of several frames the first is taken. Colour images whose
channels are equal are returned with one channel, so a grey picture gives the same pixels from any file type.
"""

import hashlib
import io
import struct
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from steelshift.messages import say

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MAX_PIXELS = 40_000_000
MAX_BYTES = 128 * 1024 * 1024
MIN_SIDE = 2

# Pillow warns of odd metadata and of large images; sizes are checked here before decoding. Said once for the process:
# images are decoded in threads, and catching warnings around each is not safe there.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Unreadable(Exception):
    """One file that cannot be used; `reason` is a key of the catalogue. It becomes a named row, never a traceback."""

    def __init__(self, reason: str, /, **fields: object) -> None:
        self.reason = reason
        self.fields = fields
        super().__init__(say(reason, **fields))


@dataclass(frozen=True)
class Decoded:
    pixels: np.ndarray
    """uint8, (H, W, C) with C = 1 (grey) or 3 (RGB)."""
    bit_depth: int
    """8, 12 or 16: the depth that was scaled to 8."""
    frames: int
    """Frames in the file; only the first was taken."""


def read_bytes(path: Path) -> tuple[str, bytes]:
    """The sha256 of a file's bytes in hex, and the bytes. Raises Unreadable."""
    try:
        if not path.is_file():
            raise Unreadable("not_a_file")
        size = path.stat().st_size
        if size == 0:
            raise Unreadable("empty_file")
        if size > MAX_BYTES:
            raise Unreadable("too_many_bytes", size=size, limit=MAX_BYTES)
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Unreadable("cannot_open", why=_short(error)) from error
    return hashlib.sha256(content).hexdigest(), content


def picture_of(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) of `Decoded` as Pillow knows it, grey or RGB."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def decode(content: bytes, *, bit_depth: int | None = None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode the first frame of an image.

    bit_depth: depth of images stored with 16 bit a pixel; None takes the file's own word (sBIT of PNG,
    MaxSampleValue of TIFF), else 12 where no value exceeds 4095, else 16.

    Raises Unreadable, and nothing else, for whatever the bytes are.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Unreadable("too_many_pixels", width=width, height=height, limit=max_pixels)
            if min(width, height) < MIN_SIDE:
                raise Unreadable("too_small", width=width, height=height)
            frames = int(getattr(image, "n_frames", 1))
            declared = declared_depth(image, content)
            image.load()
            with suppress(Exception):  # broken EXIF says nothing about orientation
                ImageOps.exif_transpose(image, in_place=True)
            pixels, depth = _to_uint8(image, bit_depth, declared)
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable("too_many_pixels", width="?", height="?", limit=max_pixels) from error
    except Image.UnidentifiedImageError as error:
        raise Unreadable("not_an_image") from error
    except Exception as error:  # a parser of untrusted bytes: whatever it raises, this file is unreadable
        raise Unreadable("broken_image", why=_short(error)) from error
    return Decoded(pixels, depth, frames)


def declared_depth(image: Image.Image, content: bytes) -> int | None:
    """Significant bits as the file itself states them, if it does."""
    if image.format == "PNG":
        header = content[: content.find(b"IDAT")] if b"IDAT" in content else content[:4096]
        at = header.find(b"sBIT")
        if at >= 0:
            bits = header[at + 4]
            return bits if 8 < bits <= 16 else None
    if image.format == "TIFF":
        maximum = image.tag_v2.get(281)
        maximum = maximum[0] if isinstance(maximum, tuple) else maximum
        if isinstance(maximum, int) and 255 < maximum <= 65535:
            return maximum.bit_length()
    return None


def _to_uint8(image: Image.Image, given: int | None, declared: int | None) -> tuple[np.ndarray, int]:
    mode = image.mode
    if mode == "F":
        raise Unreadable("float_image")
    if mode.startswith("I"):  # I;16 and I;16B, and I, which Pillow uses for 16 and 32 bit alike
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("depth_unknown", lowest=int(values.min()), highest=int(values.max()))
        depth = given or declared or 12
        if not given and values.max() >= 1 << depth:
            depth = 16  # the PNG standard spreads fewer bits over all 16
        return to_8_bits(values, depth)[:, :, None], depth
    if mode in ("1", "L") and "transparency" not in image.info:
        return np.array(image if mode == "L" else image.convert("L"))[:, :, None], 8
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        image = Image.alpha_composite(white, colour)
    pixels = np.asarray(image.convert("RGB"))
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        return pixels[..., :1].copy(), 8
    return pixels.copy(), 8


def to_8_bits(values: np.ndarray, depth: int) -> np.ndarray:
    """Whole numbers of `depth` bits scaled to uint8, rounded."""
    top = (1 << depth) - 1
    return ((values.astype(np.int64, copy=False) * 255 + top // 2) // top).clip(0, 255).astype(np.uint8)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (type(error).__name__ if not text or isinstance(error, struct.error) else text)[:160]
