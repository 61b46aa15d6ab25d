"""Who is in train, val and test: stratified, by group, by content, and the same on every machine."""

import hashlib
from collections.abc import Sequence

import numpy as np

from steelshift.data.table import ImageTable

TRAIN, VAL, TEST = 0, 1, 2
_NAMES = {"train": TRAIN, "val": VAL, "test": TEST}


def split(
    table: ImageTable,
    pixel_digests: Sequence[str],
    strata: np.ndarray,
    *,
    train_ratio: float,
    val_ratio: float,
    seed: int,
) -> np.ndarray:
    """Assign every row to TRAIN, VAL or TEST; returns int8 of shape (rows,).

    pixel_digests: equal for equal pictures; duplicates stay on one side.
    strata: class index on the source line; all zero on the target line, whose labels nobody knows.
    train_ratio: train and val against test, for both lines alike. val_ratio: val as a share of train and val.

    Within a stratum whole groups are drawn in the order of a hash of their content, so the result depends on the
    images and the seed alone. Rows whose manifest names a split keep it, and take their duplicates along.
    """
    side = np.full(len(table), -1, dtype=np.int8)
    groups = groups_of(table, pixel_digests)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    free: dict[int, list[list[int]]] = {}
    for rows in members.values():
        fixed = [_NAMES[table.rows[row].split] for row in rows if table.rows[row].split]
        if fixed:
            side[rows] = max(fixed)  # a group that reaches into the test set is test
        else:
            values, counts = np.unique(strata[rows], return_counts=True)
            free.setdefault(int(values[counts.argmax()]), []).append(rows)
    for stratum in free.values():
        stratum.sort(key=lambda rows: _order(min(table.ids[row] for row in rows), seed))
        total = sum(map(len, stratum))
        test_wanted = total * (1 - train_ratio)
        val_wanted = total * train_ratio * val_ratio
        taken = {TEST: 0, VAL: 0}
        for rows in stratum:
            if taken[TEST] + len(rows) / 2 <= test_wanted:
                where = TEST
            elif taken[VAL] + len(rows) / 2 <= val_wanted:
                where = VAL
            else:
                where = TRAIN
            side[rows] = where
            if where != TRAIN:
                taken[where] += len(rows)
    return side


def first(table: ImageTable, strata: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Row numbers of `count` images, each stratum by its share, in an order that content and seed give."""
    if count >= len(table):
        return np.arange(len(table))
    order = np.array(sorted(range(len(table)), key=lambda row: _order(table.ids[row], seed)))
    # The k-th of n images of a stratum gets rank (k + 1/2) / n: taking the lowest ranks keeps the shares.
    rank = np.empty(len(table))
    for stratum in np.unique(strata):
        rows = order[strata[order] == stratum]
        rank[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.sort(order[np.argsort(rank[order], kind="stable")[:count]])


def _order(image_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{image_id}".encode(), digest_size=8).digest()


def groups_of(table: ImageTable, pixel_digests: Sequence[str]) -> list[int]:
    """A number a row, the same for rows that share a group name or a picture (union-find over first occurrences)."""
    parent = list(range(len(table)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    seen: dict[tuple[str, str], int] = {}
    for row, (record, digest) in enumerate(zip(table.rows, pixel_digests, strict=True)):
        for kind, key in (("picture", digest), ("group", record.group)):
            if key is not None:
                other = seen.setdefault((kind, key), row)
                parent[root(row)] = root(other)
    return [root(row) for row in range(len(table))]
