"""Pixels of a table, decoded once, in one memory-mapped uint8 file that any later run can use again."""

import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from steelshift.data.decode import Unreadable, decode, read_bytes
from steelshift.data.table import ImageTable, Place, Row
from steelshift.errors import DataError
from steelshift.files import explain_full_or_readonly, sync_folder, write_json
from steelshift.messages import say

FORMAT = 1
ABANDONED = 3600
"""Seconds without a write after which the half-written file of another process counts as left by a killed one."""
_AHEAD = 2 * (os.cpu_count() or 1)  # files in flight: memory stays flat however many and however large they are


@dataclass(frozen=True)
class PixelCache:
    """Decoded images by row of `table`: `cache[i]` is uint8 of shape (H, W, C), C = 1 or 3, without a copy."""

    table: ImageTable
    """The readable rows, in order."""
    digests: tuple[str, ...]
    """Of the pixels: equal for equal pictures, whatever their files."""
    depths: tuple[int, ...]
    _bytes: np.ndarray
    _offsets: tuple[int, ...]
    _shapes: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> np.ndarray:
        height, width, channels = self._shapes[row]
        start = self._offsets[row]
        return self._bytes[start : start + height * width * channels].reshape(height, width, channels)

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        return self._shapes

    def take(self, index: np.ndarray) -> "PixelCache":
        return replace(
            self,
            table=self.table.take(index),
            digests=tuple(self.digests[i] for i in index),
            depths=tuple(self.depths[i] for i in index),
            _offsets=tuple(self._offsets[i] for i in index),
            _shapes=tuple(self._shapes[i] for i in index),
        )


def cache_pixels(
    table: ImageTable,
    folder: Path,
    *,
    bit_depth: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> PixelCache:
    """Decode every row of `table` into `folder`, or open what is there for the same content.

    Rows that cannot be decoded leave the table and are named in its `unreadable`. Raises DataError where nothing
    can be decoded, RunFailed where the folder cannot be written.
    """
    key = hashlib.sha256(f"{FORMAT} {bit_depth} ".encode() + " ".join(table.ids).encode()).hexdigest()[:24]
    index_path = folder / f"pixels-{key}.json"
    pixels_path = folder / f"pixels-{key}.bin"
    if not (index_path.exists() and pixels_path.exists()):
        _write(table, index_path, pixels_path, bit_depth, progress)
    index = json.loads(index_path.read_text(encoding="utf-8"))
    readable = [row for row, entry in enumerate(index) if "error" not in entry]
    failed = [
        (table.rows[row].path, say(entry["error"], **entry["fields"]))
        for row, entry in enumerate(index)
        if "error" in entry
    ]
    if not readable:
        raise DataError("all_unreadable", count=len(table), path=failed[0][0], why=failed[0][1])
    entries = [index[row] for row in readable]
    with pixels_path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    return PixelCache(
        table=replace(table.take(readable), unreadable=table.unreadable + tuple(failed)),
        digests=tuple(entry["digest"] for entry in entries),
        depths=tuple(entry["depth"] for entry in entries),
        _bytes=mapped,
        _offsets=tuple(entry["offset"] for entry in entries),
        _shapes=tuple(tuple(entry["shape"]) for entry in entries),
    )


def crop_pixels(pixels: np.ndarray, row: Row | Place) -> np.ndarray:
    """The part of a decoded image that a row means. Raises Unreadable where the crop reaches outside."""
    if row.crop is None:
        return pixels
    x, y, width, height = row.crop
    if x + width > pixels.shape[1] or y + height > pixels.shape[0]:
        raise Unreadable(
            "crop_outside", crop=" ".join(map(str, row.crop)), width=pixels.shape[1], height=pixels.shape[0]
        )
    return pixels[y : y + height, x : x + width]


def _write(
    table: ImageTable,
    index_path: Path,
    pixels_path: Path,
    bit_depth: int | None,
    progress: Callable[[int], None] | None,
) -> None:
    """Pixels first, the index last: an index never speaks of pixels that are not there."""
    temporary = pixels_path.with_suffix(f".{os.getpid()}.tmp")  # runs that share the folder may write at once
    for leftover in pixels_path.parent.glob("pixels-*.tmp"):
        with suppress(OSError):  # another process may be quicker
            if time.time() - leftover.stat().st_mtime > ABANDONED:
                leftover.unlink()
    index = []
    offset = 0
    with explain_full_or_readonly(pixels_path):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                for done, result in enumerate(_decode_all(table, bit_depth), start=1):
                    if isinstance(result, Unreadable):
                        index.append({"error": result.reason, "fields": result.fields})
                    else:
                        pixels, depth = result
                        content = np.ascontiguousarray(pixels)
                        digest = hashlib.blake2b(repr(content.shape).encode(), digest_size=16)
                        digest.update(content)
                        file.write(content.data)
                        entry = {"offset": offset, "shape": content.shape, "depth": depth, "digest": digest.hexdigest()}
                        index.append(entry)
                        offset += content.size
                    if progress:
                        progress(done)
                if offset == 0:
                    file.write(b"\0")  # an empty file cannot be mapped
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(pixels_path)
            write_json(temporary, index)
            temporary.replace(index_path)
            sync_folder(index_path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _decode_all(table: ImageTable, bit_depth: int | None) -> Iterator[tuple[np.ndarray, int] | Unreadable]:
    """Decoded rows in order, on all cores (Pillow decodes outside the interpreter lock), few at a time.

    Crops of one file follow each other, for ids begin with the hash of the file: it is decoded once.
    """

    def decode_file(rows: list[Row]) -> list[tuple[np.ndarray, int] | Unreadable]:
        try:
            decoded = decode(read_bytes(rows[0].path)[1], bit_depth=bit_depth)
        except Unreadable as error:
            return [error] * len(rows)
        results: list[tuple[np.ndarray, int] | Unreadable] = []
        for row in rows:
            try:
                results.append((crop_pixels(decoded.pixels, row), decoded.bit_depth))
            except Unreadable as error:
                results.append(error)
        return results

    with ThreadPoolExecutor() as pool:
        files = _by_file(table)
        pending = [pool.submit(decode_file, rows) for rows in islice(files, _AHEAD)]
        while pending:
            yield from pending.pop(0).result()
            pending.extend(pool.submit(decode_file, rows) for rows in islice(files, 1))


def _by_file(table: ImageTable) -> Iterator[list[Row]]:
    rows: list[Row] = []
    for row in table.rows:
        if rows and row.id.partition("#")[0] != rows[0].id.partition("#")[0]:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
