"""Following a folder: a row for every image that arrives, exactly once, whatever stops the process in between.

The table itself is the ledger: a row is appended and synced before its image counts as done, and on the next start
what the table holds is not looked at again. Images are known by the hash of their content.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from steelshift.data.sources import Found, inside, of_place
from steelshift.data.table import Place, every_place
from steelshift.errors import UsageError
from steelshift.files import locked
from steelshift.inspection.rows import BATCH, ImageRow, Inspected, append_rows, read_rows
from steelshift.inspection.specification import Head

QUIET = 1.0
"""Seconds for which size and time of a file must not have changed, or it may be half written."""
PAUSE = 0.5
"""Seconds between two looks at the folder."""
Stamp = tuple[int, int]
"""Size and time of the last change, in nanoseconds."""


def follow(
    folders: list[Path],
    out: Path,
    inspect: Callable[[Iterator[Found]], Iterator[Inspected]],
    stopped: Callable[[], bool],
    use: Callable[[Inspected], ImageRow] = lambda inspected: inspected.row,
    heads: Sequence[Head] = (),
    but: Sequence[Path] = (),
) -> Iterator[ImageRow]:
    """Append a row for every image in these folders, and go on as more arrive; yields what was appended.

    inspect: images to rows. use: what else is done with an image, before its row is written. heads: of declared tasks.
    but: files and folders that are written to: nothing arrives there. Ends once `stopped` says so, after the images in
    hand. Raises UsageError where another process follows into the same table, or it is another table, RunFailed.
    """
    with locked(out.with_name(f".{out.name}.lock"), wait=False) as alone:
        if not alone:
            raise UsageError("watched_already", path=out)
        written = {_key(row["id"] or None, row["path"]) for row in read_rows(out, heads)}
        done: dict[Path, Stamp] = {}
        seen: dict[Path, tuple[Stamp, float]] = {}
        while not stopped():
            ready = _ready(folders, (out, *but), done, seen)
            for start in range(0, len(ready), BATCH):
                if stopped():
                    return
                part = ready[start : start + BATCH]
                rows, found = [], inspect(map(_found, (path for path, _ in part)))
                for (path, stamp), inspected in zip(part, found, strict=True):
                    if _stamp(path) != stamp:
                        continue  # written to while it was read: it comes again
                    done[path] = stamp
                    key = _key(inspected.row.id, inspected.row.path)
                    if key not in written:
                        written.add(key)
                        rows.append(use(inspected))
                if rows:
                    append_rows(rows, out, heads)
                    yield from rows
            if not ready:
                time.sleep(PAUSE)


def _found(path: Path) -> Found:
    return of_place(Place(path, None))


def _key(name: str | None, path: str) -> str:
    """Content, or the path of what has none that could be read."""
    return name or f"path {path}"


def _ready(
    folders: list[Path], but: Sequence[Path], done: dict[Path, Stamp], seen: dict[Path, tuple[Stamp, float]]
) -> list[tuple[Path, Stamp]]:
    """Files that are new or changed, and quiet."""
    now, ready, there = time.monotonic(), [], set()
    for place in every_place([folder for folder in folders if folder.is_dir()]):
        path = place.path
        stamp = _stamp(path)
        if stamp is None or path.name.startswith(but[0].name) or inside(path, but) or done.get(path) == stamp:
            continue
        there.add(path)
        before = seen.get(path)
        if before is None or before[0] != stamp:
            seen[path] = stamp, now
        elif now - before[1] >= QUIET:
            ready.append((path, stamp))
    for path in seen.keys() - there:
        del seen[path]
    return ready


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
