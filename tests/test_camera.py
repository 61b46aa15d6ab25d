from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import yaml

from steelshift.data.camera import SHIFTS, Shift, load_shift, photograph
from steelshift.errors import UsageError

CHANGED = {
    "lighting_gradient": 0.5,
    "lighting_direction": 120.0,
    "lighting_spread": 20.0,
    "polarity": 1.0,
    "gain": 1.3,
    "offset": 20.0,
    "gamma": 1.4,
    "blur": 1.0,
    "noise": 5.0,
    "scale": 1.3,
    "jpeg_quality": 40,
    "dust": 100,
}


def some_image(height=60, width=80):
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    smooth = 120 + 50 * np.sin(columns / 7) * np.cos(rows / 9)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(60, 80), (1, 1), (1, 7), (5, 3)])
def test_neutral_camera_changes_nothing(shape):
    image = some_image(*shape)
    taken = photograph(image, Shift(), np.random.default_rng(0))
    assert np.array_equal(taken, image)
    assert taken is not image and not np.shares_memory(taken, image)


def test_scene_part_does_not_reach_the_camera():
    scene = Shift(rolling_wavelength=2, rolling_strength=2, grain=2, defect_contrast=0.5, class_mix=0.5)
    image = some_image()
    assert np.array_equal(photograph(image, scene, np.random.default_rng(0)), image)


@pytest.mark.parametrize("name", CHANGED)
def test_every_camera_knob_changes_the_image(name):
    base = Shift(lighting_gradient=0.3)
    base_taken = photograph(some_image(), base, np.random.default_rng(3))
    taken = photograph(some_image(), replace(base, **{name: CHANGED[name]}), np.random.default_rng(3))
    assert taken.dtype == np.uint8 and taken.shape == base_taken.shape
    assert np.abs(taken.astype(int) - base_taken).mean() > 0.2


def test_dark_field_inverts_and_its_probability_holds():
    image, half = some_image(), Shift(polarity=0.5)
    correlations = [
        np.corrcoef(image.ravel(), photograph(image, half, np.random.default_rng(i)).ravel())[0, 1] for i in range(60)
    ]
    assert all(abs(each) > 0.95 for each in correlations)
    assert 0.3 < np.mean([each < 0 for each in correlations]) < 0.7
    inverted = photograph(image, Shift(polarity=1.0), np.random.default_rng(0))
    assert np.corrcoef(image.ravel(), inverted.ravel())[0, 1] < -0.95


def test_light_varies_from_image_to_image_but_not_from_call_to_call():
    shift = Shift(lighting_gradient=0.5)
    first, again, other = (photograph(some_image(), shift, np.random.default_rng(i)) for i in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_light_comes_from_its_direction():
    flat = np.full((40, 40), 100, np.uint8)
    below = Shift(lighting_gradient=0.5, lighting_direction=90.0, lighting_spread=0.0)
    taken = photograph(flat, below, np.random.default_rng(0)).astype(int)
    assert taken[-1].mean() > 115 > 85 > taken[0].mean()
    assert np.ptp(taken[20]) <= 1


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 50), (33, 17), (200, 300)])
def test_photograph_takes_any_size(name, shape):
    taken = photograph(some_image(*shape), SHIFTS[name], np.random.default_rng(0))
    assert taken.shape == shape and taken.dtype == np.uint8


@pytest.mark.parametrize("scale", [0.77, 0.9, 1.3, 3.0])
def test_magnification_keeps_the_middle_in_place(scale):
    image = np.zeros((51, 51), np.uint8)
    image[24:27, 24:27] = 200
    taken = photograph(image, Shift(scale=scale), np.random.default_rng(0)).astype(float)
    rows, columns = np.mgrid[:51, :51]
    assert abs((rows * taken).sum() / taken.sum() - 25) < 0.6
    assert abs((columns * taken).sum() / taken.sum() - 25) < 0.6


@pytest.mark.parametrize(("shape", "kind"), [((4, 4), float), ((4, 4, 3), np.uint8), ((0, 4), np.uint8)])
def test_photograph_refuses_what_is_no_grey_image(shape, kind):
    with pytest.raises(ValueError, match="uint8"):
        photograph(np.zeros(shape, kind), Shift(), np.random.default_rng(0))


def test_named_shifts_are_graded():
    images = [some_image(100, 100) for _ in range(8)]
    distances = [
        np.mean([np.abs(photograph(image, shift, np.random.default_rng(i)).astype(int) - image).mean()
                 for i, image in enumerate(images)])
        for shift in SHIFTS.values()
    ]  # fmt: skip
    assert list(SHIFTS) == ["mild", "middle", "high"]
    assert distances == sorted(distances)


def test_load_shift_reads_names_files_and_the_record_of_lines(tmp_path):
    assert load_shift("middle") is SHIFTS["middle"]
    (tmp_path / "own.yaml").write_text("gain: 2\njpeg_quality: 50\n")
    assert load_shift(tmp_path / "own.yaml") == Shift(gain=2, jpeg_quality=50)
    record = {"shift": asdict(SHIFTS["high"]), "images": 7, "seed": 0}
    (tmp_path / "shift.yaml").write_text(yaml.safe_dump(record))
    assert load_shift(str(tmp_path / "shift.yaml")) == SHIFTS["high"]


@pytest.mark.parametrize(
    ("text", "key", "name"),
    [
        ("gian: 2", "shift_unknown_key", "gian"),
        ("1: 2", "shift_unknown_key", "1"),
        ("gain: 9", "shift_out_of_range", "gain"),
        ("blur: .nan", "shift_out_of_range", "blur"),
        ("noise: loud", "shift_out_of_range", "noise"),
        ("jpeg_quality: 60.5", "shift_out_of_range", "jpeg_quality"),
        ("- gain", "shift_unreadable", "list"),
        ("gain: [", "shift_unreadable", "own.yaml"),
        ("", "shift_unreadable", "own.yaml"),
    ],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_load_shift_says_what_is_wrong_where(tmp_path, monkeypatch, text, key, name, language):
    monkeypatch.setenv("STEELSHIFT_LANG", language)
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_shift(path)
    assert caught.value.key == key
    assert name in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_shift_lists_the_names():
    with pytest.raises(UsageError, match="mild, middle, high"):
        load_shift("huge")


@pytest.mark.parametrize("each", [each for each in fields(Shift) if each.metadata], ids=lambda each: each.name)
def test_ranges_hold_in_python_too(each):
    low, high = each.metadata["low"], each.metadata["high"]
    assert low <= each.default <= high
    assert getattr(Shift(**{each.name: high}), each.name) == high
    with pytest.raises(UsageError, match=each.name):
        Shift(**{each.name: high + 1})
    with pytest.raises(UsageError, match=each.name):
        Shift(**{each.name: low - 1})
