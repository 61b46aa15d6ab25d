from pathlib import Path

import numpy as np
import pytest

from builders import rows_of
from steelshift.data.splits import TEST, TRAIN, VAL, first, split
from steelshift.data.table import ImageTable, Row

STRATA = np.repeat([0, 1, 2], [300, 100, 20])


def alone(table):
    """Digests of pictures that are all different."""
    return [f"pixels of {row.id}" for row in table.rows]


def sides(table, digests=None, strata=None, **options):
    strata = np.zeros(len(table), int) if strata is None else strata
    ratios = {"train_ratio": 0.8, "val_ratio": 0.25, "seed": 0} | options
    return split(table, digests or alone(table), strata, **ratios)


@pytest.mark.parametrize(("train", "val"), [(0.8, 0.25), (0.5, 0.1), (0.9, 0.5), (0.8, 0.0)])
def test_every_stratum_is_split_by_the_ratios(train, val):
    side = sides(rows_of(420), strata=STRATA, train_ratio=train, val_ratio=val)
    for stratum in range(3):
        inside = side[stratum == STRATA]
        for which, share in ((TEST, 1 - train), (VAL, train * val), (TRAIN, train * (1 - val))):
            assert abs((inside == which).sum() - share * len(inside)) <= 1


def test_groups_stay_together():
    group = [f"coil {i % 40}" for i in range(400)]
    side = sides(rows_of(400, group=group), strata=np.arange(400) % 3)
    for name in set(group):
        assert len(set(side[np.array(group) == name])) == 1
    assert np.abs(np.bincount(side) / 400 - [0.6, 0.2, 0.2]).max() < 0.1


def test_equal_pictures_stay_together_even_across_groups():
    table = rows_of(300, group=[f"coil {i // 3}" if i % 3 else None for i in range(300)])
    digests = [f"picture {i % 60}" for i in range(300)]
    side = sides(table, digests)
    parent = {}
    for row, digest in enumerate(digests):
        parent.setdefault(digest, set()).add(side[row])
    assert all(len(found) == 1 for found in parent.values())
    for row in range(0, 300, 3):
        assert side[row + 1] == side[row + 2]


def test_the_manifests_word_is_kept_and_binds_duplicates():
    wanted = [["train", "val", "test", None][i % 4] for i in range(80)]
    table = rows_of(80, split=wanted)
    digests = alone(table)
    digests[3] = digests[2]  # a free twin of a test picture
    digests[5] = digests[6]  # a val picture that is in the test set too
    side = sides(table, digests)
    names = {"train": TRAIN, "val": VAL, "test": TEST}
    for row, name in enumerate(wanted):
        if name and row != 5:
            assert side[row] == names[name]
    assert side[3] == TEST and side[5] == TEST


def test_a_split_depends_on_content_and_seed_alone():
    table = rows_of(200, group=[f"coil {i % 50}" if i % 2 else None for i in range(200)])
    digests = [f"picture {i // 2}" if i % 5 == 0 else f"own {i}" for i in range(200)]
    strata = np.array([i % 3 for i in range(200)])
    side = sides(table, digests, strata)
    assert np.array_equal(side, sides(table, digests, strata))
    order = np.random.default_rng(0).permutation(200)
    moved = ImageTable(
        tuple(Row(table.rows[i].id, Path(f"elsewhere/{i}.bmp"), group=table.rows[i].group) for i in order)
    )
    assert np.array_equal(side[order], sides(moved, [digests[i] for i in order], strata[order]))
    assert not np.array_equal(side, sides(table, digests, strata, seed=1))
    kept = {row for row in np.flatnonzero(side == TEST)}
    assert len(kept & set(np.flatnonzero(sides(table, digests, strata, seed=1) == TEST))) < 0.6 * len(kept)


def test_a_class_of_one_image_is_trained_on():
    side = sides(rows_of(11), strata=np.repeat([0, 1], [10, 1]))
    assert side[10] == TRAIN


@pytest.mark.parametrize("count", [21, 42, 210])
def test_first_keeps_the_shares_of_strata(count):
    table = rows_of(420)
    chosen = first(table, STRATA, count, seed=0)
    assert len(chosen) == count == len(set(chosen.tolist()))
    assert np.abs(np.bincount(STRATA[chosen], minlength=3) - count * np.array([300, 100, 20]) / 420).max() <= 1


def test_first_follows_content_and_seed_and_grows_by_adding():
    table = rows_of(420)
    chosen = first(table, STRATA, 60, seed=0)
    assert set(chosen) <= set(first(table, STRATA, 90, seed=0))
    assert set(chosen) != set(first(table, STRATA, 60, seed=1))
    order = np.random.default_rng(0).permutation(420)
    assert {int(order[i]) for i in first(table.take(order), STRATA[order], 60, seed=0)} == set(chosen.tolist())
    assert np.array_equal(first(table, STRATA, 500, seed=0), np.arange(420))
