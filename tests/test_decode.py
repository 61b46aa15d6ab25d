import hashlib
import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from builders import encoded, picture, write
from steelshift.data import decode as room
from steelshift.data.decode import Unreadable, decode, read_bytes

GREY = picture(3)
COLOUR = np.stack([picture(seed) for seed in (1, 2, 3)], axis=2)
LOSSLESS = ("PNG", "BMP", "TIFF")
JPEG_ERROR = 20


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def after_header(png, *chunks):
    """A PNG with chunks put in behind its IHDR, which ends at byte 33."""
    return png[:33] + b"".join(chunks) + png[33:]


def deep(bits):
    """GREY in that many bits a pixel."""
    return np.round(GREY * ((2**bits - 1) / 255)).astype(np.uint16)


def tiff(values, **tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag[1:])] = value
    return encoded(values, "TIFF", tiffinfo=info)


@pytest.mark.parametrize("name", ["a.jpg", "b.PNG", "c.bmp", "d", "e.txt", "f.svg"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_format_is_found_by_content_and_not_by_name(tmp_path, kind, name):
    content = encoded(GREY, kind)
    path = write(tmp_path / name, content)
    digest, read = read_bytes(path)
    decoded = decode(read)
    assert digest == hashlib.sha256(content).hexdigest()
    assert decoded.pixels.dtype == np.uint8 and decoded.pixels.shape == (*GREY.shape, 1)
    assert np.abs(decoded.pixels[..., 0].astype(int) - GREY).max() <= (JPEG_ERROR if kind == "JPEG" else 0)
    assert (decoded.bit_depth, decoded.frames) == (8, 1)
    assert path.read_bytes() == content and [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_colour_is_kept_and_equal_channels_give_one(kind):
    assert np.array_equal(decode(encoded(COLOUR, kind)).pixels, COLOUR)
    assert np.array_equal(decode(encoded(np.stack([GREY] * 3, 2), kind)).pixels[..., 0], GREY)
    assert decode(encoded(np.stack([GREY] * 3, 2), kind)).pixels.shape[2] == 1


def test_a_grey_jpeg_and_its_colour_twin_have_one_channel():
    assert decode(encoded(np.stack([GREY] * 3, 2), "JPEG")).pixels.shape[2] == 1


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_images_equal_their_8_bit_twin(kind, bits):
    decoded = decode(encoded(deep(bits), kind))
    assert decoded.bit_depth == bits
    assert np.array_equal(decoded.pixels[..., 0], GREY)


def test_big_endian_tiff_equals_its_little_endian_twin():
    assert np.array_equal(decode(encoded(Image.fromarray(deep(16).astype(">u2")), "TIFF")).pixels[..., 0], GREY)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_file_states_its_depth(bits):
    of_png = decode(after_header(encoded(deep(bits)), chunk(b"sBIT", bytes([bits]))))
    of_tiff = decode(tiff(deep(bits), t281=2**bits - 1))
    for decoded in (of_png, of_tiff):
        assert decoded.bit_depth == bits
        assert np.array_equal(decoded.pixels[..., 0], GREY)


def test_the_stated_depth_beats_the_guess_and_the_caller_beats_both():
    dark = after_header(encoded(deep(12)), chunk(b"sBIT", b"\x10"))
    assert decode(dark).bit_depth == 16
    assert decode(dark).pixels.max() <= 16
    assert np.array_equal(decode(dark, bit_depth=12).pixels[..., 0], GREY)


def test_12_bits_spread_over_16_as_the_png_standard_says_are_not_clipped():
    spread = (deep(12) << 4) | (deep(12) >> 8)
    decoded = decode(after_header(encoded(spread), chunk(b"sBIT", b"\x0c")))
    assert np.abs(decoded.pixels[..., 0].astype(int) - GREY).max() <= 1


STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.T,
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].T,
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("bits", [8, 16])
def test_every_orientation_gives_the_same_upright_pixels(orientation, bits):
    upright = GREY if bits == 8 else deep(16)
    stored = np.ascontiguousarray(STORED[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for content in (encoded(stored, "PNG", exif=exif), tiff(stored, t274=orientation)):
        assert np.array_equal(decode(content).pixels[..., 0], GREY)
    if bits == 8:
        found = decode(encoded(stored, "JPEG", quality=95, exif=exif)).pixels[..., 0]
        assert found.shape == GREY.shape and np.abs(found.astype(int) - GREY).max() <= JPEG_ERROR


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12", b"\0" * 40, b"Exif\0\0II*\0\xff\xff\xff\xff"],
)
def test_broken_exif_is_as_good_as_none(exif):
    assert np.array_equal(decode(encoded(GREY, "JPEG", exif=exif)).pixels, decode(encoded(GREY, "JPEG")).pixels)
    assert np.array_equal(decode(after_header(encoded(GREY), chunk(b"eXIf", exif))).pixels[..., 0], GREY)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode):
    alpha = np.full_like(GREY, 128)
    alpha[:4], alpha[-4:] = 0, 255
    colours = [Image.fromarray(GREY)] * (3 if mode == "RGBA" else 1)
    found = decode(encoded(Image.merge(mode, [*colours, Image.fromarray(alpha)]))).pixels
    wanted = 255 - (255.0 - GREY) * alpha / 255
    assert found.shape[2] == 1
    assert np.abs(found[..., 0] - wanted).max() <= 1
    assert (found[:4] == 255).all() and np.array_equal(found[-4:, :, 0], GREY[-4:])


def test_a_transparent_grey_value_is_laid_over_white():
    found = decode(encoded(Image.fromarray(GREY), transparency=int(GREY[0, 0]))).pixels[..., 0]
    assert np.array_equal(found, np.where(GREY[0, 0] == GREY, 255, GREY))


@pytest.mark.parametrize("transparent", [None, 1])
def test_palettes_become_colours(transparent):
    indices = np.random.default_rng(0).integers(0, 3, (10, 12)).astype(np.uint8)
    palette = np.array([[10, 20, 30], [200, 0, 90], [0, 0, 255]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    wanted = palette.copy()
    if transparent is not None:
        wanted[transparent] = 255
    options = {} if transparent is None else {"transparency": transparent}
    assert np.array_equal(decode(encoded(image, "PNG", **options)).pixels, wanted[indices])


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb(kind):
    black = Image.merge("CMYK", [Image.new("L", GREY.shape[::-1])] * 3 + [Image.fromarray(255 - GREY)])
    found = decode(encoded(black, kind)).pixels.astype(int)
    assert np.abs(found - GREY[..., None]).max() <= (0 if kind == "TIFF" else JPEG_ERROR)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_one_bit_is_black_and_white(kind):
    mask = GREY > 125
    found = decode(encoded(Image.fromarray(mask), kind)).pixels[..., 0]
    assert np.array_equal(found, np.where(mask, 255, 0))


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_of_several_frames_the_first_is_taken(kind):
    others = [Image.fromarray(picture(seed)) for seed in (8, 9)]
    decoded = decode(encoded(GREY, kind, save_all=True, append_images=others))
    assert decoded.frames == 3
    assert np.array_equal(decoded.pixels[..., 0], GREY)


def huge_png(side):
    rows = zlib.compress(b"\0" * (side // 8 + 1) * side, 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "hello")
    return file.getvalue()


REFUSED = {
    "nothing": (b"", "not_an_image"),
    "text": (b"this is no image at all\n" * 9, "not_an_image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not_an_image"),
    "gif": (encoded(GREY, "GIF"), "not_an_image"),
    "zip before a PNG": (zipped() + encoded(GREY), "not_an_image"),
    "half a JPEG": (encoded(picture(0, 200, 200), "JPEG")[:4000], "broken_image"),
    "half a PNG": (encoded(GREY)[:200], "broken_image"),
    "half a BMP": (encoded(GREY, "BMP")[:600], "broken_image"),
    "float TIFF": (encoded(GREY.astype(np.float32), "TIFF"), "float_image"),
    "NaN TIFF": (encoded(np.full((9, 9), np.nan, np.float32), "TIFF"), "float_image"),
    "32 bit TIFF": (encoded(GREY.astype(np.int32) * 70_000, "TIFF"), "depth_unknown"),
    "negative TIFF": (encoded(GREY.astype(np.int32) - 99, "TIFF"), "depth_unknown"),
    "one column": (encoded(np.zeros((60_000, 1), np.uint8)), "too_small"),
    "one row": (encoded(np.zeros((1, 60_000), np.uint8)), "too_small"),
    "64 megapixels in 8 kilobytes": (huge_png(8_000), "too_many_pixels"),
    "400 megapixels in 50 kilobytes": (huge_png(20_000), "too_many_pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_usable_image_is_named(name):
    content, reason = REFUSED[name]
    with pytest.raises(Unreadable) as caught:
        decode(content)
    assert caught.value.reason == reason
    assert str(caught.value)


def test_the_limit_of_pixels_can_be_set():
    assert decode(encoded(GREY), max_pixels=GREY.size).pixels.size == GREY.size
    with pytest.raises(Unreadable, match="pixels"):
        decode(encoded(GREY), max_pixels=GREY.size - 1)


def test_a_png_with_a_zip_behind_it_is_that_png():
    assert np.array_equal(decode(encoded(GREY) + zipped()).pixels[..., 0], GREY)


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    def reason(path):
        with pytest.raises(Unreadable) as caught:
            read_bytes(path)
        return caught.value.reason

    assert reason(write(tmp_path / "empty.png", b"")) == "empty_file"
    assert reason(tmp_path) == "not_a_file"
    assert reason(tmp_path / "absent.png") == "not_a_file"
    (tmp_path / "dangling.png").symlink_to(tmp_path / "absent.png")
    assert reason(tmp_path / "dangling.png") == "not_a_file"
    path = write(tmp_path / "big.png", encoded(GREY))
    assert read_bytes(path)
    monkeypatch.setattr(room, "MAX_BYTES", 20)
    assert reason(path) == "too_many_bytes"


VICTIMS = [
    encoded(GREY), encoded(COLOUR), encoded(deep(16)), encoded(GREY, "BMP"), encoded(GREY, "TIFF"),
    encoded(GREY, "JPEG"),
    encoded(COLOUR, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 6, 0)),
    tiff(deep(12), t281=4095, t274=6), encoded(COLOUR, "TIFF", compression="tiff_lzw"),
    encoded(Image.fromarray(GREY).convert("P"), "PNG", transparency=1),
    encoded(GREY > 99, "TIFF", compression="group4"),
    encoded(GREY, "PNG", save_all=True, append_images=[Image.fromarray(picture(1))]),
]  # fmt: skip


def survives(content):
    """Whether the bytes decode; anything raised but Unreadable fails the test."""
    try:
        pixels = decode(content, max_pixels=1_000_000).pixels
    except Unreadable as error:
        assert str(error)
        return False
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3)
    return True


@pytest.mark.parametrize("victim", range(len(VICTIMS)))
def test_mutated_bytes_decode_or_are_unreadable(victim):
    assert survives(VICTIMS[victim])
    rng = np.random.default_rng(victim)
    for _ in range(125):
        content = bytearray(VICTIMS[victim])
        # Most structure is at the front, and TIFF's directory at the end.
        length = len(content)
        for _ in range(rng.integers(1, 6)):
            where = rng.choice([rng.integers(min(64, length)), rng.integers(length), length - 1 - rng.integers(150)])
            content[where] = rng.integers(256)
        survives(bytes(content[: rng.integers(length)] if rng.random() < 0.2 else content))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*"])
)
def test_arbitrary_bytes_decode_or_are_unreadable(content, beginning):
    survives(beginning + content)
