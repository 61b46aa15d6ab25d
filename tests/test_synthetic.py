from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steelshift.data.camera import SHIFTS, Shift, load_shift
from steelshift.data.synthetic import CLASSES, draw, write_lines
from steelshift.errors import UsageError

DEFECTS = CLASSES[1:]
SEVERITIES = {"source": Shift(), **SHIFTS}


def drawn(class_name, *seed, **options):
    return draw(class_name, np.random.default_rng(seed), **options)


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.*")}


@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("size", [64, 200, 224])
def test_draw_gives_image_and_mask(class_name, size):
    image, mask = drawn(class_name, 1, size=size)
    assert image.shape == mask.shape == (size, size)
    assert image.dtype == np.uint8 and mask.dtype == bool
    again, mask_again = drawn(class_name, 1, size=size)
    assert np.array_equal(image, again) and np.array_equal(mask, mask_again)
    assert not np.array_equal(image, drawn(class_name, 2, size=size)[0])


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("class_name", CLASSES)
def test_masks_cover_a_sensible_share(class_name, severity):
    shares = [drawn(class_name, 5, i, shift=SEVERITIES[severity])[1].mean() for i in range(6)]
    if class_name == "qualified":
        assert max(shares) == 0
    else:
        assert min(shares) >= 0.005 and max(shares) <= 0.5


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("class_name", DEFECTS)
def test_defects_are_visible_in_the_mask_and_only_there(class_name, severity):
    """Against the qualified twin: the same surface through the same camera."""
    contrasts = []
    for i in range(7):
        image, mask = drawn(class_name, 6, i, shift=SEVERITIES[severity])
        twin, _ = drawn("qualified", 6, i, shift=SEVERITIES[severity])
        difference = image.astype(float) - twin
        around = ndimage.binary_dilation(mask, iterations=6)
        texture = (twin - ndimage.gaussian_filter(twin.astype(float), 15))[around].std()
        contrasts.append(np.sqrt((difference[mask] ** 2).mean()) / texture)
        # Beyond a defect's soft border and flank only JPEG differs, since its blocks carry errors further.
        far = ~ndimage.binary_dilation(mask, iterations=16)
        if far.any():
            assert np.abs(difference[far]).mean() < 0.4 * np.abs(difference[mask]).mean()
    assert min(contrasts) > 1.7 and np.median(contrasts) > 2.8


def test_no_trivial_statistic_tells_the_classes():
    features, labels = [], []
    for i in range(280):
        image, _ = drawn(CLASSES[i % 7], 7, i)
        features.append([image.mean(), image.std()])
        labels.append(i % 7)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features[:196], labels[:196])
    assert model.score(features[196:], labels[196:]) < 0.45


@pytest.mark.parametrize(
    "change",
    [{"rolling_wavelength": 2.0}, {"rolling_strength": 2.0}, {"grain": 2.0}, {"defect_contrast": 0.6},
     {"gain": 1.2}, {"scale": 1.3}, {"polarity": 1.0}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_scene_and_camera_knobs_reach_the_drawing(change):
    image, mask = drawn("inclusion", 8)
    changed, changed_mask = drawn("inclusion", 8, shift=Shift(**change))
    assert np.abs(changed.astype(int) - image).mean() > 0.3
    assert np.array_equal(mask, changed_mask) == ("scale" not in change)


def test_defect_contrast_leaves_the_qualified_surface_alone():
    faint, _ = drawn("qualified", 9, shift=Shift(defect_contrast=0.5))
    assert np.array_equal(drawn("qualified", 9)[0], faint)


def test_draw_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="rust"):
        drawn("rust", 0)
    with pytest.raises(ValueError, match="32"):
        drawn("crazing", 0, size=20)


def test_lines_on_disk(tmp_path):
    told = []
    write_lines(tmp_path / "a", shift=SHIFTS["middle"], images=21, seed=3, progress=told.append)
    assert told == list(range(1, 43))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    for line in ("source", "target"):
        images = sorted((tmp_path / "a" / line).glob("*/*.png"))
        assert sorted(path.name for path in images) == [f"{i:06d}.png" for i in range(21)]
        masks = sorted((tmp_path / "a/masks" / line).glob("*/*"))
        defective = [path for path in images if path.parent.name != "qualified"]
        assert [path.parts[-2:] for path in masks] == [path.parts[-2:] for path in defective]
        for path in masks:
            with Image.open(path) as mask:
                assert set(np.unique(np.asarray(mask))) == {0, 255}
    counts = Counter(path.parent.name for path in (tmp_path / "a/source").glob("*/*"))
    assert counts == dict.fromkeys(CLASSES, 3)
    with Image.open(images[0]) as image:
        assert image.size == (200, 200) and image.mode == "L"
    assert load_shift(tmp_path / "a/shift.yaml") == SHIFTS["middle"]
    assert yaml.safe_load((tmp_path / "a/shift.yaml").read_text())["seed"] == 3


def test_an_image_depends_on_seed_line_and_number_alone(tmp_path):
    for name, images, seed in (("short", 8, 3), ("long", 17, 3), ("again", 8, 3), ("other", 8, 4)):
        write_lines(tmp_path / name, shift=SHIFTS["high"], images=images, seed=seed)
    short, long, again, other = (files(tmp_path / name) for name in ("short", "long", "again", "other"))
    assert short == again
    for record in ("shift.yaml", "source.csv", "target.csv"):
        short.pop(record)
    assert short.items() <= long.items()
    assert not set(short.values()) & set(other.values())


def test_names_do_not_follow_the_classes(tmp_path):
    write_lines(tmp_path / "a", shift=Shift(), images=28, seed=0)
    by_number = sorted((path.name, path.parent.name) for path in (tmp_path / "a/source").glob("*/*"))
    classes = [class_name for _, class_name in by_number]
    assert len({tuple(classes[i : i + 7]) for i in range(0, 28, 7)}) == 4  # no period
    assert sum(before == after for before, after in pairwise(classes)) < 10  # no long runs


@pytest.mark.parametrize("class_mix", [0.0, 0.5, 0.9])
def test_class_frequencies_follow_class_mix(tmp_path, monkeypatch, class_mix):
    blank = np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)
    monkeypatch.setattr("steelshift.data.synthetic.draw", lambda *_, **__: blank)
    write_lines(tmp_path / "a", shift=Shift(class_mix=class_mix), images=350, seed=1)
    counts = {
        line: sorted(len(list((tmp_path / "a" / line / name).glob("*"))) for name in CLASSES)
        for line in ("source", "target")
    }
    assert counts["source"] == [50] * 7
    assert sum(counts["target"]) == 350
    assert counts["target"][0] / counts["target"][-1] == pytest.approx(1 - class_mix, abs=0.06)
    assert len(list((tmp_path / "a/target/qualified").glob("*"))) == counts["target"][-1]


def test_lines_refuse_a_full_folder_and_too_few_images(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(UsageError, match=out.name) as caught:
            write_lines(out, shift=Shift(), images=7, seed=0)
        assert caught.value.key == "folder_not_empty"
    with pytest.raises(UsageError, match="7") as caught:
        write_lines(tmp_path / "new", shift=Shift(), images=6, seed=0)
    assert caught.value.key == "lines_too_short"
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    (tmp_path / "empty").mkdir()
    write_lines(tmp_path / "empty", shift=replace(SHIFTS["mild"], noise=0.0), images=7, seed=0)
    assert (tmp_path / "empty/source").is_dir()


def test_nothing_half_written_stays(tmp_path):
    def stop(done):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(tmp_path / "deep/a", shift=Shift(), images=7, seed=0, progress=stop)
    assert list((tmp_path / "deep").iterdir()) == []
