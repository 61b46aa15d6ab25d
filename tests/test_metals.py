"""Metals, the strip's edge, rare classes and a month's drift of synthetic lines."""

import csv
import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steelshift.cli import main
from steelshift.data import synthetic
from steelshift.data.camera import SHIFTS, Shift, aged, load_lines, of_new_alloy, photograph
from steelshift.data.metals import METALS, coloured
from steelshift.data.synthetic import CLASSES, COLUMNS, EXTENTS, MECHANISMS, draw, extent, quadrant, write_lines
from steelshift.errors import UsageError


def drawn(class_name, *seed, size=100, **options):
    return draw(class_name, np.random.default_rng(seed), size=size, shift=Shift(**options))


def manifest(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def blank(monkeypatch):
    """Lines without pictures, for tests of what is written around them."""
    empty = np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)
    monkeypatch.setattr(synthetic, "draw", lambda *_, **__: empty)


@pytest.mark.parametrize(
    ("shift", "recorded"),
    [(Shift(), "ca04ca1a2ab83028"), (SHIFTS["middle"], "496771f4f34adea2"), (SHIFTS["high"], "e90ed442e5d945e7")],
    ids=["neutral", "middle", "high"],
)
def test_steel_is_drawn_as_it_always_was(shift, recorded):
    """All measured tables rest on these pictures. Recorded before there were other metals, of means over blocks of
    10 x 10 pixels in whole grey levels, which the last bit of another processor's exponentials does not move."""
    kept = hashlib.sha256()
    for class_name in CLASSES:
        image, mask = draw(class_name, np.random.default_rng(11), shift=shift)
        for picture in (image.astype(float), 255.0 * mask):
            kept.update(np.rint(picture.reshape(20, 10, 20, 10).mean((1, 3))).astype(np.uint8).tobytes())
    assert kept.hexdigest()[:16] == recorded


def test_lines_recorded_earlier_keep_their_record():
    assert set(SHIFTS["high"].record()) == set(Shift().record()) and "metal" not in Shift().record()
    record = Shift(metal="copper", dust=3).record()
    assert record["metal"] == "copper" and record["dust"] == 3 and "edge" not in record


@pytest.mark.parametrize("metal", METALS)
def test_defects_are_seen_on_every_metal(metal):
    for class_name in CLASSES[1:]:
        contrasts = []
        for i in range(4):
            image, mask = drawn(class_name, 6, i, metal=metal)
            twin, _ = drawn("qualified", 6, i, metal=metal)
            around = ndimage.binary_dilation(mask, iterations=4)
            texture = (twin - ndimage.gaussian_filter(twin.astype(float), 8))[around].std()
            contrasts.append(np.sqrt(((image.astype(float) - twin)[mask] ** 2).mean()) / texture)
        assert np.median(contrasts) > 2, class_name


def test_four_statistics_of_grey_images_mostly_tell_the_metals():
    features, metals = [], []
    for number, metal in enumerate(METALS):
        for i in range(28):
            image = drawn(CLASSES[i % 7], 7, i, metal=metal)[0].astype(float)
            down, across = (np.abs(np.diff(image, axis=axis)).mean() for axis in (0, 1))
            features.append([image.mean(), down / image.mean(), across / image.mean(), across / down])
            metals.append(number)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    odd = np.arange(len(metals)) % 2 == 1
    model.fit(np.array(features)[odd], np.array(metals)[odd])
    assert model.score(np.array(features)[~odd], np.array(metals)[~odd]) > 0.5  # chance: 0.2


def test_white_oxide_on_zinc_and_dark_on_steel():
    for metal, sign in (("steel", -1), ("zinc alloy", 1)):
        changes = []
        for i in range(4):
            image, mask = drawn("patches", 3, i, metal=metal)
            changes.append((image.astype(float) - drawn("qualified", 3, i, metal=metal)[0])[mask].mean())
        assert sign * np.mean(changes) > 10


def test_colours_keep_the_grey_level():
    grey = np.arange(256, dtype=np.uint8)[None]
    assert coloured(grey, "steel") is grey
    for metal in list(METALS)[1:]:
        taken = coloured(grey, metal)
        assert taken.shape == (1, 256, 3)
        assert np.abs(taken @ np.array([0.299, 0.587, 0.114]) - grey).max() <= 12
        assert (taken[0, [0, 255]] == [[0] * 3, [255] * 3]).all()
    assert coloured(grey, "copper")[0, 128, 0] > 1.5 * coloured(grey, "copper")[0, 128, 2]


@pytest.mark.parametrize("scale", [1.0, 1.4])
def test_defects_at_the_edge_lie_on_the_strip_beside_it(scale):
    for class_name in CLASSES[1:]:
        for i in range(3):
            image, mask = drawn(class_name, 8, i, edge=1.0, scale=scale)
            table = image.astype(float).mean(0) < 35
            assert 0.1 < table.mean() < 0.45 and (table[:5].all() != table[-5:].all())
            rows, columns = np.nonzero(mask)
            border = np.nonzero(table)[0].max() if table[:5].all() else np.nonzero(table)[0].min()
            assert len(rows) >= 8 and np.abs(columns - border).mean() < 35
            assert not mask[:, table][:, 2:-2].any()


def test_every_row_of_the_manifest_says_what_is_seen(tmp_path):
    write_lines(tmp_path / "a", shift=Shift(metal="aluminium", edge=0.5), images=28, seed=2)
    source, target = (manifest(tmp_path / "a" / f"{line}.csv") for line in ("source", "target"))
    assert len(source) == len(target) == 28 and tuple(target[0]) == COLUMNS
    assert {row["metal"] for row in source} == {"steel"} and {row["metal"] for row in target} == {"aluminium"}
    assert {row["place"] for row in source} == {"centre"}
    assert 7 <= sum(row["place"] == "edge" for row in target) <= 21
    for row in target:
        with Image.open(tmp_path / "a" / row["path"]) as image:
            assert image.mode == "RGB"
            dark = (np.asarray(image.convert("L")).mean(0) < 45).mean()
        assert (dark > 0.1) == (row["place"] == "edge")
        assert row["label"] in row["path"] and row["mechanism"] == MECHANISMS[row["label"]]
        if row["label"] == "qualified":
            assert (row["extent"], row["quadrant"]) == ("none", "")
            continue
        with Image.open(tmp_path / "a/masks" / row["path"]) as mask:
            defect = np.asarray(mask) > 0
        assert (row["extent"], row["quadrant"]) == (extent(defect), quadrant(defect))
    assert len({row["extent"] for row in target}) >= 3


def test_extent_and_quadrant_by_hand():
    mask = np.zeros((10, 10), bool)
    assert (extent(mask), quadrant(mask)) == ("none", "")
    mask[8, :3] = True
    assert (extent(mask), quadrant(mask)) == ("small", "lower left")
    mask[1, 7] = mask[0, 6:] = True  # 8 of 100, the mean row 4.1, the mean column 5.25
    assert (extent(mask), quadrant(mask)) == ("medium", "upper right")
    assert extent(~mask) == "large"
    assert list(EXTENTS.values()) == sorted(EXTENTS.values())


def test_rare_classes_are_as_rare_as_asked(tmp_path, blank):
    rare = Shift(prevalence={"scratches": 0.008, "crazing": 0.02})
    write_lines(tmp_path / "a", shift=Shift(class_mix=0.5), source=rare, images=700, seed=1)
    counts = Counter(row["label"] for row in manifest(tmp_path / "a/source.csv"))
    assert counts["scratches"] == pytest.approx(5.6, abs=2) and counts["crazing"] == pytest.approx(14, abs=3)
    rest = [counts[name] for name in CLASSES if name not in rare.prevalence]
    assert max(rest) - min(rest) <= 4
    assert load_lines(tmp_path / "a/shift.yaml") == (rare, Shift(class_mix=0.5))


def test_defects_of_another_mill_are_bright_where_others_are_dark(tmp_path):
    for name in CLASSES:
        usual, other, clean = (
            draw(each, np.random.default_rng(3), shift=shift)[0].astype(int)
            for each, shift in ((name, Shift()), (name, Shift(inverted=["scratches"])), ("qualified", Shift()))
        )
        if name == "scratches":
            places = np.abs(usual - clean) > 20
            assert ((usual - clean)[places] * (other - clean)[places] < 0).mean() > 0.99
        else:
            assert np.array_equal(usual, other)
    write_lines(tmp_path / "a", shift=Shift(inverted=["scratches"]), images=7, seed=1)
    assert load_lines(tmp_path / "a/shift.yaml") == (Shift(), Shift(inverted=("scratches",)))


def test_a_month_ages_the_line_day_by_day(tmp_path, blank):
    write_lines(tmp_path / "a", shift=Shift(), images=900, seed=1, days=30)
    rows = manifest(tmp_path / "a/target.csv")
    assert [int(row["day"]) for row in rows] == [1 + i // 30 for i in range(900)]
    assert all(row["path"].startswith(f"target/day-{int(row['day']):02d}/") for row in rows)
    assert all((tmp_path / "a" / row["path"]).is_file() for row in rows[::100])
    of_new = [sum(row["alloy"] == "new" for row in rows[start : start + 300]) for start in (0, 300, 600)]
    assert of_new[0] == 0 < of_new[1] < of_new[2] < 180
    first, last = (Counter(row["label"] for row in rows[part]) for part in (slice(150), slice(750, 900)))
    assert max(first.values()) - min(first.values()) < 8 and min(last.values()) < max(last.values()) / 2
    assert all(row["day"] == "" == row["alloy"] for row in manifest(tmp_path / "a/source.csv"))


def test_ageing_is_slow_and_goes_one_way():
    assert aged(Shift(), 0) == Shift()
    assert aged(SHIFTS["high"], 400) and of_new_alloy(aged(Shift(reflectance=1.9, grain=0.3), 400))  # within ranges
    images = [[drawn(name, 9, i, **aged(Shift(), age).record())[0] for i, name in enumerate(CLASSES)]
              for age in (0, 7, 14, 21, 29)]  # fmt: skip
    flat = np.array(images, dtype=float).mean((1, 2, 3))
    assert (np.diff(flat) < 0).all()  # the lamp
    grey = np.full((80, 80), 120, np.uint8)
    taken = [photograph(grey, aged(Shift(), age), np.random.default_rng(3)).astype(float) for age in (0, 15, 29)]
    noise = [np.abs(np.diff(each, 2)).mean() for each in taken]
    assert noise[0] == 0 < noise[1] < noise[2] < 20


def test_dust_stays_where_it_is():
    grey = np.full((80, 80), 120, np.uint8)
    some, more = (photograph(grey, Shift(dust=n), np.random.default_rng(n)).astype(int) for n in (20, 60))
    assert (grey - some).max() > 10 and (grey >= some).all() and (some >= more).all() and (some > more).any()
    assert np.array_equal(some, photograph(grey, Shift(dust=20), np.random.default_rng(99)))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("metal: gold", "shift_unknown_metal"),
        ("metal: [steel]", "shift_unknown_metal"),
        ("prevalence: 0.1", "shift_prevalence"),
        ("prevalence: {scratches: 1.2}", "shift_prevalence"),
        ("prevalence: {rust: 0.1}", "shift_unknown_class"),
        ("inverted: scratches", "shift_inverted"),
        ("inverted: [qualified]", "shift_unknown_class"),
        ("edge: 2", "shift_out_of_range"),
        ("source: 3", "shift_unreadable"),
        ("source: {gian: 3}", "shift_unknown_key"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(tmp_path, capsys, text, key):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        source, target = load_lines(tmp_path / "own.yaml")
        write_lines(tmp_path / "new", source=source, shift=target, images=7, seed=0)
    assert caught.value.key == key
    assert main(["synth", "--shift", str(tmp_path / "own.yaml"), "--out", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


def test_the_command_draws_the_example(tmp_path, blank):
    options = ["--shift", "examples/copper.yaml", "--images", "14", "--days", "2", "--out", str(tmp_path / "a")]
    assert main(["synth", *options]) == 0
    assert {row["metal"] for row in manifest(tmp_path / "a/target.csv")} == {"copper"}
    assert main(["synth", *options[:2], "--images", "13", "--days", "2", "--out", str(tmp_path / "b")]) == 2
