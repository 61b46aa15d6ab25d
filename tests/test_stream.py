from dataclasses import fields

import numpy as np
import pytest
import torch

from builders import cached, picture
from steelshift.data.augment import boxes, cut_out, grey_values
from steelshift.data.stream import CLASS, JoinedStream, SourceBatch, SourceStream, TargetBatch, TargetStream, resized

LABELS = np.array([0] * 14 + [1] * 5 + [2] * 1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    images = [picture(seed, 20 + 4 * (seed % 3), 30) for seed in range(18)]
    images += [np.stack([picture(seed) for seed in (50, 51, 52)], 2), picture(60, 9, 40)]
    return cached(tmp_path_factory.mktemp("stream"), images)


def source(cache, **options):
    return SourceStream(
        **{"cache": cache, "batch": 8, "size": 16, "augmentation": "plain", "seed": 3, "labels": {CLASS: LABELS}}
        | options
    )


def target(cache, **options):
    return TargetStream(**{"cache": cache, "batch": 8, "size": 16, "augmentation": "plain", "seed": 3} | options)


def same(one, other):
    labels = getattr(one, "labels", {})
    return torch.equal(one.images, other.images) and all(
        torch.equal(values, other.labels[task]) for task, values in labels.items()
    )


STREAMS = [
    pytest.param(lambda cache, **o: source(cache, **o), id="balanced"),
    pytest.param(lambda cache, **o: source(cache, sampler="random", **o), id="random"),
    pytest.param(lambda cache, **o: target(cache, **o), id="target"),
]


@pytest.mark.parametrize("make", STREAMS)
@pytest.mark.parametrize("augmentation", ["none", "upright", "plain", "strong"])
def test_a_batch_depends_on_seed_and_step_alone(cache, make, augmentation):
    stream = make(cache, augmentation=augmentation)
    forth = [stream[k] for k in range(6)]
    np.random.seed(1)
    torch.manual_seed(1)
    again = make(cache, augmentation=augmentation)
    for k in (5, 0, 3, 3, 1):
        assert same(forth[k], again[k])


@pytest.mark.parametrize("make", STREAMS)
def test_batches_differ_over_steps_and_seeds(cache, make):
    stream, other = make(cache), make(cache, seed=4)
    kinds = [stream[k].images for k in range(6)] + [other[k].images for k in range(6)]
    assert all(not torch.equal(a, b) for i, a in enumerate(kinds) for b in kinds[:i])


def test_source_and_target_draw_from_different_numbers(cache):
    assert not torch.equal(source(cache, sampler="random")[0].images, target(cache)[0].images)


@pytest.mark.parametrize("make", STREAMS)
@pytest.mark.parametrize("augmentation", ["none", "upright", "plain", "strong"])
def test_images_are_float_grey_squares(cache, make, augmentation):
    images = make(cache, augmentation=augmentation, size=24)[2].images
    assert images.shape == (8, 1, 24, 24) and images.dtype == torch.float32
    # Mixing grey values with float weights may pass the ends by a rounding.
    assert images.min() >= -1e-3 and images.max() <= 255.001 and images.std() > 5


@pytest.mark.parametrize(("augmentation", "turned"), [("none", 0), ("upright", 0), ("plain", 0.5), ("strong", 0.5)])
def test_upright_images_stay_as_they_stand(augmentation, turned):
    """What is in a quarter of the image stays there, or labels that say so would be wrong."""
    cut = boxes(np.full((2000, 2), 100), augmentation, np.random.default_rng(0))
    top, left, bottom, right = cut.T
    assert (top > bottom).mean() == pytest.approx(turned, abs=0.05)
    assert (left > right).mean() == pytest.approx(turned, abs=0.05)
    if augmentation in ("none", "upright"):
        assert np.abs((left + right) / 2 - 50).max() < 6 and (right - left).min() > 94
    assert augmentation == "none" or len(np.unique(top)) > 1000


@pytest.mark.parametrize("batch", [6, 8, 11])
def test_a_balanced_batch_has_every_class_twice_or_more(cache, batch):
    stream = source(cache, batch=batch)
    for k in range(12):
        counts = torch.bincount(stream[k].labels[CLASS], minlength=3)
        assert counts.sum() == batch and counts.min() >= 2
        assert counts.max() - counts.min() <= 1


def test_with_many_classes_a_balanced_batch_has_some_of_them_twice(cache):
    stream = source(cache, batch=6, labels={CLASS: np.arange(20) // 2})
    seen = set()
    for k in range(40):
        counts = torch.bincount(stream[k].labels[CLASS], minlength=10)
        assert sorted(counts[counts > 0].tolist()) == [2, 2, 2]
        seen |= set(counts.nonzero()[:, 0].tolist())
    assert seen == set(range(10))


def test_rows_without_a_label_never_enter_a_balanced_batch(cache):
    stream = source(cache, labels={CLASS: np.where(LABELS == 0, -1, LABELS)})
    assert all((stream[k].labels[CLASS] >= 1).all() for k in range(5))


def test_labels_belong_to_their_images(cache):
    whole = resized(cache, np.arange(20), 16)
    for sampler in ("balanced", "random"):
        stream = source(cache, augmentation="none", sampler=sampler, labels={CLASS: LABELS, "coating": 9 - LABELS})
        for k in range(4):
            batch = stream[k]
            row = [int((whole == image).flatten(1).all(1).nonzero()[0, 0]) for image in batch.images]
            assert batch.labels[CLASS].tolist() == LABELS[row].tolist()
            assert batch.labels["coating"].tolist() == (9 - LABELS[row]).tolist()


@pytest.mark.parametrize("batch", [4, 5, 7])
def test_in_turn_shows_no_image_twice_in_an_epoch(cache, batch):
    stream = target(cache, batch=batch, augmentation="none")
    whole = resized(cache, np.arange(20), 16)
    for epoch in range(3):
        rows = [
            int((whole == image).flatten(1).all(1).nonzero()[0, 0])
            for k in range(20 // batch)
            for image in stream[epoch * (20 // batch) + k].images
        ]
        assert len(set(rows)) == len(rows) == 20 // batch * batch
    assert source(cache, batch=batch).epoch == 20 // batch


def test_a_batch_larger_than_the_line_is_still_whole(cache):
    few = cache.take(np.arange(3))
    assert target(few)[0].images.shape[0] == 8
    assert source(few, labels={CLASS: np.array([0, 1, 1])}).epoch == 1


def test_the_weak_images_are_the_same_in_their_own_light(cache):
    batch, plain = target(cache, augmentation="plain")[3], target(cache, augmentation="none")[3]
    assert torch.equal(plain.images, plain.weak)
    assert not torch.equal(batch.images, batch.weak)
    pairs = torch.stack([batch.images.flatten(1), batch.weak.flatten(1)], 1)
    assert all(torch.corrcoef(pair)[0, 1] > 0.98 for pair in pairs)  # plain augmentation changes light linearly


def test_a_target_batch_has_no_place_for_a_label(cache):
    assert [field.name for field in fields(TargetBatch)] == ["images", "weak"]
    assert not [name for name in dir(TargetStream) if "label" in name.lower()]
    assert "labels" in {field.name for field in fields(SourceBatch)}
    with pytest.raises(TypeError):
        target(cache, labels={CLASS: LABELS})
    with pytest.raises(AttributeError):
        target(cache)[0].labels = {CLASS: torch.zeros(8)}


def test_images_of_mixed_shapes_come_out_as_one_by_one(cache):
    rows = np.array([19, 3, 18, 0, 3, 7])
    assert len({cache.shapes[row] for row in rows}) >= 4
    together = resized(cache, rows, 21)
    for at, row in enumerate(rows):
        assert torch.allclose(together[at], resized(cache, np.array([row]), 21)[0], atol=1e-3)
    cut = boxes(np.array([cache.shapes[row][:2] for row in rows]), "strong", np.random.default_rng(0))
    together = resized(cache, rows, 21, cut)
    for at, row in enumerate(rows):
        assert torch.allclose(together[at], resized(cache, np.array([row]), 21, cut[at : at + 1])[0], atol=1e-3)


@pytest.mark.parametrize("kind", ["plain", "strong"])
def test_crops_stay_inside_the_image_and_flip_both_ways(kind):
    shapes = np.tile([[40, 90]], (500, 1))
    top, left, bottom, right = boxes(shapes, kind, np.random.default_rng(0)).T
    assert min(top.min(), bottom.min(), left.min(), right.min()) >= 0
    assert max(top.max(), bottom.max()) <= 40.001 and max(left.max(), right.max()) <= 90.001
    share = np.abs(bottom - top) * np.abs(right - left) / 3600
    assert share.min() >= (0.7 if kind == "plain" else 0.5) - 1e-3 and share.max() > 0.95
    for low, high in ((top, bottom), (left, right)):
        assert 0.4 < (low > high).mean() < 0.6


def test_no_augmentation_is_the_whole_image():
    shapes = np.array([[40, 90], [7, 5]])
    rng = np.random.default_rng(0)
    assert boxes(shapes, "none", rng).tolist() == [[0, 0, 40, 90], [0, 0, 7, 5]]
    images = torch.rand(2, 1, 8, 8) * 255
    assert torch.equal(grey_values(images, "none", rng), images)


def test_plain_keeps_polarity_and_strong_inverts_half():
    ramp = torch.linspace(20, 230, 256).reshape(1, 1, 16, 16).expand(200, 1, 16, 16)
    for kind, low, high in (("plain", 0, 0), ("strong", 0.35, 0.65)):
        changed = grey_values(ramp, kind, np.random.default_rng(0)).flatten(1)
        falling = (
            torch.stack([torch.corrcoef(torch.stack([row, ramp[0].flatten()]))[0, 1] for row in changed]) < 0
        ).float()
        assert low <= falling.mean() <= high


def test_the_whole_target_line_comes_once_as_it_is(cache):
    shown = torch.cat([batch.images for batch in target(cache).whole()])
    assert torch.equal(shown, resized(cache, np.arange(len(cache)), 16))


def test_a_hole_is_a_square_of_mean_grey_and_nothing_else_changes():
    images = torch.rand(50, 1, 32, 32) * 255
    cut = cut_out(images, np.random.default_rng(0))
    for before, after in zip(images[:, 0], cut[:, 0], strict=True):
        hole = after != before
        rows, columns = hole.any(1).nonzero()[:, 0], hole.any(0).nonzero()[:, 0]
        assert len(rows) + 1 >= 8 and len(rows) <= 17 and abs(len(rows) - len(columns)) <= 1
        assert (
            hole.sum() == len(rows) * len(columns) == hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].sum()
        )
        assert torch.allclose(after[hole], before.mean())


def test_joined_batches_hold_both_parts(cache):
    one, other = source(cache, batch=6), source(cache, batch=2, seed=9)
    joined = JoinedStream(one, other)
    assert joined.epoch == one.epoch
    for step in range(3):
        batch = joined[step]
        assert same(SourceBatch(batch.images[:6], {CLASS: batch.labels[CLASS][:6]}), one[step])
        assert same(SourceBatch(batch.images[6:], {CLASS: batch.labels[CLASS][6:]}), other[step])
