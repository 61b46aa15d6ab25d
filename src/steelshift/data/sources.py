"""What `inspect` looks at: image files, folders, globs, manifests, zip and tar archives, videos.

Archives and videos are read as streams: nothing of them is ever written anywhere, names inside them are text and never
a path, and what they claim of themselves is checked against what comes out. They are taken for such by their suffix,
and only where they are named themselves: an archive inside a folder or an archive is a file that is no image.
"""

import bz2
import glob
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from steelshift.data.cache import crop_pixels
from steelshift.data.decode import MAX_BYTES, MAX_PIXELS, Decoded, Unreadable, decode, read_bytes
from steelshift.data.table import Place, every_place
from steelshift.errors import DataError, UsageError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,asf"
"""Names of demultiplexers."""
MOST_ENTRIES = 100_000
"""Of one archive."""
MOST_EXPANSION = 100
"""Bytes that may come out of each byte of an archive,"""
FREE_EXPANSION = 256 * 1024 * 1024
"""and bytes that may come out of any."""


@dataclass(frozen=True, slots=True)
class Found:
    """One image, or what should have been one."""

    path: str
    """As rows have it: of a file, `archive!name`, or `video#frame`."""
    take: Callable[[int | None], "Taken"]
    """Reads and decodes it, given the bit depth of images stored with 16 bit, or None; never raises."""
    size: int = 0
    """Bytes that are held until it is taken."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An image as it was read."""

    id: str | None
    """sha256 of the file, with the crop or frame where there is one; None where it could not be read."""
    decoded: Decoded | None
    """None where it cannot be used."""
    error: str | None = None
    """Why not, as a sentence."""
    content: bytes | None = None
    """The bytes of the file; None for frames of a video, and where it could not be read."""


def find_images(
    sources: Sequence[Path], *, every: int = 1, but: Sequence[Path] = ()
) -> tuple[Iterator[Found], int | None]:
    """Every image of the sources in order, and how many; None where only reading an archive or a video will tell.

    Files are listed now, so that what is written later is none of them. every: of videos, one frame in so many.
    but: files and folders that hold none of them, for they are written to. Raises DataError where a pattern matches
    nothing.
    """
    parts: list[Iterable[Found]] = []
    count: int | None = 0
    for source in _matching(sources):
        kind = _kind(source)
        if kind is None:
            places = [place for place in every_place([source]) if not inside(place.path, but)]
            parts.append(map(of_place, places))
            count = None if count is None else count + len(places)
        else:
            parts.append(_of_video(source, every) if kind == "video" else (_of_zip, _of_tar)[kind == "tar"](source))
            count = None
    return chain.from_iterable(parts), count


def inside(path: Path, places: Sequence[Path]) -> bool:
    """Whether a file is one of these, or lies in one of these folders."""
    path = path.absolute()
    return any(path.is_relative_to(place.absolute()) for place in places)


def need_for(sources: Sequence[Path]) -> None:
    """Raises UsageError where a source is a video and the library for videos is not installed."""
    if any(_kind(source) == "video" for source in _matching(sources)) and find_spec("av") is None:
        raise UsageError("video_package_missing")


def of_place(place: Place) -> Found:
    """A file, or a crop of one."""

    def take(bit_depth: int | None) -> Taken:
        digest = content = None
        try:
            digest, content = read_bytes(place.path)
            return Taken(place.named(digest), _cropped(decode(content, bit_depth=bit_depth), place), content=content)
        except Unreadable as error:
            return Taken(digest, None, str(error), content)

    name = str(place.path)
    return Found(name if place.crop is None else "{}#{},{},{},{}".format(name, *place.crop), take)


def _cropped(decoded: Decoded, place: Place) -> Decoded:
    if place.crop is None:
        return decoded
    return Decoded(np.ascontiguousarray(crop_pixels(decoded.pixels, place)), decoded.bit_depth, decoded.frames)


def _matching(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        name = str(source)
        try:
            exists = source.exists()
        except (OSError, ValueError):
            exists = False
        if exists or not glob.has_magic(name):
            yield source
            continue
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise DataError("no_match", pattern=name)
        yield from map(Path, matches)


def _kind(source: Path) -> str | None:
    name = source.name.lower()
    if source.is_dir():
        return None
    for kind, suffixes in (("zip", ZIP_SUFFIXES), ("tar", TAR_SUFFIXES), ("video", VIDEO_SUFFIXES)):
        if name.endswith(suffixes):
            return kind
    return None


# Archives.


def _of_bytes(path: str, content: bytes) -> Found:
    digest = hashlib.sha256(content).hexdigest()

    def take(bit_depth: int | None) -> Taken:
        try:
            if not content:
                raise Unreadable("empty_file")
            return Taken(digest, decode(content, bit_depth=bit_depth), content=content)
        except Unreadable as error:
            return Taken(digest, None, str(error), content)

    return Found(path, take, len(content))


def _bad(path: str, error: Unreadable) -> Found:
    return Found(path, lambda bit_depth: Taken(None, None, str(error)))


def _of_zip(path: Path) -> Iterator[Found]:
    try:
        with path.open("rb") as file:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                left = _budget(path)
                for entry in archive.infolist():
                    if entry.is_dir():
                        continue
                    name = f"{path}!{entry.filename}"
                    try:
                        content = _member(archive, entry, left)
                    except Unreadable as error:
                        yield _bad(name, error)
                        if error.reason == "archive_expands":
                            return
                        continue
                    left -= len(content)
                    yield _of_bytes(name, content)
    except Unreadable as error:
        yield _bad(str(path), error)
    except Exception as error:  # a parser of untrusted bytes: whatever it raises, the archive is no use
        yield _bad(str(path), _broken(error))


def _check_directory(file: BinaryIO) -> None:
    """Count what a zip archive lists before the list is read: it is held in memory whole. Raises Unreadable."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 65_557))
    end = file.read()
    at = end.rfind(b"PK\5\6")
    if at < 0 or len(end) < at + 22:
        raise Unreadable("archive_broken", why="no list of its files")
    count, length = struct.unpack("<HI", end[at + 10 : at + 16])
    wide = end.rfind(b"PK\6\6", 0, at)
    if wide >= 0 and len(end) >= wide + 56:
        count, length = struct.unpack("<QQ", end[wide + 32 : wide + 48])
    if count > MOST_ENTRIES or length > MOST_ENTRIES * 1000:
        raise Unreadable("archive_entries", most=MOST_ENTRIES)
    file.seek(0)


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, left: int) -> bytes:
    """The bytes of a file in a zip archive. Raises Unreadable."""
    if (entry.external_attr >> 28) == 0xA:
        raise Unreadable("archive_link")
    if entry.flag_bits & 1:
        raise Unreadable("archive_encrypted")
    if entry.file_size > MAX_BYTES:
        raise Unreadable("too_many_bytes", size=entry.file_size, limit=MAX_BYTES)
    try:
        with archive.open(entry) as file:
            return _bounded(file, left)
    except Unreadable:
        raise
    except Exception as error:  # as above, of one file
        raise _broken(error) from error


def _bounded(file: BinaryIO, left: int) -> bytes:
    """All of a file, if an image may have so much and the archive may give it. Raises Unreadable."""
    content = file.read(min(MAX_BYTES, left) + 1)
    if len(content) > left:
        raise Unreadable("archive_expands", times=MOST_EXPANSION)
    if len(content) > MAX_BYTES:
        raise Unreadable("too_many_bytes", size=f"> {MAX_BYTES}", limit=MAX_BYTES)
    return content


def _of_tar(path: Path) -> Iterator[Found]:
    name = str(path)
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            stream = _Limited(_unpacked(file, start), _budget(path))
            with tarfile.open(fileobj=stream, mode="r|", errorlevel=0) as archive:
                for count, entry in enumerate(archive, start=1):
                    name = f"{path}!{entry.name}"
                    if count > MOST_ENTRIES:
                        raise Unreadable("archive_entries", most=MOST_ENTRIES)
                    archive.members = []  # or a stream of any length is remembered
                    if entry.isdir():
                        continue
                    if not entry.isreg():
                        yield _bad(name, Unreadable("archive_link"))
                    elif entry.size > MAX_BYTES:
                        yield _bad(name, Unreadable("too_many_bytes", size=entry.size, limit=MAX_BYTES))
                    else:
                        content = archive.extractfile(entry).read()
                        if len(content) < entry.size:
                            raise Unreadable("archive_broken", why="it ends too soon")
                        yield _of_bytes(name, content)
    except Unreadable as error:
        yield _bad(name, error)
    except Exception as error:  # as above
        yield _bad(name, _broken(error))


def _unpacked(file: BinaryIO, start: bytes) -> BinaryIO:
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if start.startswith(b"\xfd7zXZ") else file


class _Limited(io.RawIOBase):
    """A stream that gives so many bytes and no more: then it raises Unreadable."""

    def __init__(self, stream: BinaryIO, left: int) -> None:
        self.stream = stream
        self.left = left

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.left:
            raise Unreadable("archive_expands", times=MOST_EXPANSION)
        content = self.stream.read(size)
        self.left -= len(content)
        return content


def _budget(path: Path) -> int:
    return max(FREE_EXPANSION, MOST_EXPANSION * path.stat().st_size)


def _broken(error: BaseException) -> Unreadable:
    return Unreadable("archive_broken", why=(" ".join(str(error).split()) or type(error).__name__)[:160])


# Videos.


def _of_video(path: Path, every: int) -> Iterator[Found]:
    """One frame in `every`, decoded in order; a video that breaks off ends with a row that says so."""
    import av

    av.logging.set_level(av.logging.PANIC)
    name = str(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            # From an open file, and in these formats alone: a playlist could name other files, and addresses.
            options = {"protocol_whitelist": "file", "format_whitelist": VIDEO_FORMATS}
            with av.open(file, options=options, metadata_errors="replace") as video:
                if not video.streams.video:
                    raise Unreadable("video_broken", why="no pictures in it")
                stream = video.streams.video[0]
                if stream.width * stream.height > MAX_PIXELS:
                    raise Unreadable("too_many_pixels", width=stream.width, height=stream.height, limit=MAX_PIXELS)
                number = -1
                for number, frame in enumerate(video.decode(stream)):
                    name = f"{path}#{number}"
                    if number % every == 0:
                        yield _of_frame(name, f"{digest}#{number}", _pixels(frame))
                if number < 0:
                    raise Unreadable("video_broken", why="no pictures in it")
    except Unreadable as error:
        yield _bad(name, error)
    except Exception as error:  # as above
        why = (" ".join(str(error).split()) or type(error).__name__)[:160]
        yield _bad(name, Unreadable("video_broken", why=why))


def _pixels(frame: object) -> np.ndarray:
    grey = frame.format.name.startswith("gray")  # type: ignore[attr-defined]
    if frame.width * frame.height > MAX_PIXELS:  # type: ignore[attr-defined]
        raise Unreadable("too_many_pixels", width=frame.width, height=frame.height, limit=MAX_PIXELS)  # type: ignore[attr-defined]
    pixels = frame.to_ndarray(format="gray" if grey else "rgb24")  # type: ignore[attr-defined]
    return pixels[..., None] if grey else pixels


def _of_frame(path: str, name: str, pixels: np.ndarray) -> Found:
    return Found(path, lambda bit_depth: Taken(name, Decoded(pixels, 8, 1)), pixels.nbytes)


