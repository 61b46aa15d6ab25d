"""How related tasks are, how they are grouped, what they do to each other: against loops and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from steelshift.multitask import conflict as conflicts
from steelshift.multitask.conflict import conflict, interference, margins, reduction
from steelshift.multitask.groups import at_random, between, by_nature, by_relatedness, within
from steelshift.multitask.reading import read
from steelshift.multitask.relatedness import (
    alignment,
    map_cosine,
    mean_known,
    taken,
)
from steelshift.multitask.separation import (
    cluster_distance,
    flat_map,
    linear_probe,
    loss_surface,
    roughness,
    silhouette,
    steps_to,
)
from steelshift.multitask.sharing import importance, overlap, shared, used
from steelshift.report.relations import draw_maps, draw_relatedness, draw_surfaces

NAN = math.nan


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Relatedness


def test_map_cosine_is_the_documents_formula_in_loops():
    maps = drawn(3, 5, 2, 3, 4) + 7
    found = map_cosine(maps)
    for a in range(3):
        for b in range(3):
            cosines = []
            for n in range(5):
                one, other = (maps[t, n].flatten() - maps[t].mean(0).flatten() for t in (a, b))
                cosines.append(float(one @ other / (one.norm() * other.norm())))
            assert float(found[a, b]) == pytest.approx(sum(cosines) / 5, abs=1e-5)
    assert torch.allclose(found.diagonal(), torch.ones(3, dtype=torch.double))


def test_map_cosine_sees_neither_a_common_part_nor_scale_and_knows_opposites():
    maps = drawn(1, 6, 3, 4, 4)
    common = 50 * drawn(1, 3, 4, 4, seed=1)
    found = map_cosine(torch.cat([maps, 3 * maps + common, -maps, torch.full_like(maps, 2.0)]))
    assert found[0, 1] == pytest.approx(1, abs=1e-5) and found[0, 2] == pytest.approx(-1, abs=1e-5)
    assert (found[3] == 0).all()  # a task that takes nothing in particular


def test_what_a_task_takes_is_found_by_gradient():
    """Two tasks that read the same channel are related, one that reads another is not."""
    maps = drawn(16, 3, 4, 4).requires_grad_()
    scores = [maps[:, 0].sum(), 2 * maps[:, 0].sum(), maps[:, 1].sum()]
    parts = torch.stack([taken(maps, torch.autograd.grad(s, maps, retain_graph=True)[0]).detach() for s in scores])
    found = map_cosine(parts)
    assert found[0, 1] == pytest.approx(1, abs=1e-6) and found[0, 2] == 0


def test_alignment_is_songs_by_hand_and_takes_any_width():
    features = [drawn(12, 4), drawn(12, 30, seed=1), torch.ones(12, 3)]
    found = alignment(features)
    one, other = ((f.double() @ f.double().T).fill_diagonal_(0) for f in features[:2])
    wanted = song(one, other) / (song(one, one) * song(other, other)) ** 0.5
    assert float(found[0, 1]) == pytest.approx(float(wanted), abs=1e-9)
    assert (found[2] == 0).all()
    turn = torch.linalg.qr(drawn(4, 4, seed=2))[0]
    assert float(alignment([features[0], 5 * features[0] @ turn + 3])[0, 1]) == pytest.approx(1, abs=1e-6)


def song(one, other):
    """HSIC_1 of Song et al., equation 5: kernels without their diagonals."""
    m = len(one)
    crossed = one.sum() * other.sum() / ((m - 1) * (m - 2))
    return (torch.trace(one @ other) + crossed - 2 / (m - 2) * (one @ other).sum()) / (m * (m - 3))


def test_alignment_of_noise_is_none_and_grows_no_larger_with_more_features():
    apart = [float(alignment([drawn(64, 256, seed=seed), drawn(64, 256, seed=seed + 1)])[0, 1]) for seed in (2, 4, 6)]
    assert max(map(abs, apart)) < 0.1
    of_many = torch.cat([drawn(2000, 4), drawn(2000, 4, seed=1)], 1)
    x, y = (f.double() - f.double().mean(0) for f in (of_many, of_many[:, :6]))
    biased = (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    assert float(alignment([of_many, of_many[:, :6]])[0, 1]) == pytest.approx(float(biased), abs=5e-3)


def test_mean_leaves_out_what_was_not_measured():
    first, second = torch.tensor([[1.0, 0.2], [0.2, 1.0]]), torch.tensor([[1.0, NAN], [NAN, 1.0]])
    assert mean_known(torch.stack([first, second]))[0, 1] == pytest.approx(0.2)
    assert mean_known(second[None])[0, 1].isnan()


# Groups


TWO_PAIRS = np.array([[1.0, 0.9, 0.1, 0.0], [0.9, 1.0, 0.2, 0.1], [0.1, 0.2, 1.0, 0.7], [0.0, 0.1, 0.7, 1.0]])


def test_grouping_by_nature():
    natures = [("steel", "thermal"), ("steel", "chemical"), ("steel", "thermal"), ("aluminium", "thermal")]
    assert by_nature(natures) == ((0, 2), (1,), (3,))


def test_grouping_by_relatedness_finds_what_belongs_together():
    assert by_relatedness(TWO_PAIRS) == ((0, 1), (2, 3))
    assert by_relatedness(TWO_PAIRS[::-1, ::-1][[0, 2, 1, 3]][:, [0, 2, 1, 3]]) == ((0, 2), (1, 3))
    assert by_relatedness(TWO_PAIRS, 1) == ((0, 1, 2, 3),)
    assert by_relatedness(TWO_PAIRS, 3) == ((0, 1), (2,), (3,))
    assert by_relatedness(TWO_PAIRS, 4) == ((0,), (1,), (2,), (3,))
    assert by_relatedness(np.ones((3, 3))) == ((0, 1, 2),)
    assert by_relatedness(np.ones((1, 1))) == ((0,),)
    assert by_relatedness(np.array([[1, 0.3], [0.3, 1]])) == ((0, 1),)
    assert by_relatedness(np.array([[1, NAN], [NAN, 1]])) == ((0,), (1,))


def test_random_groups_have_the_same_sizes_and_hold_every_task():
    like = ((0, 3), (1,), (2, 4, 5))
    found = [at_random(like, np.random.default_rng(seed)) for seed in range(8)]
    for grouping in found:
        assert sorted(task for group in grouping for task in group) == list(range(6))
        assert sorted(map(len, grouping)) == [1, 2, 3]
        assert [group[0] for group in grouping] == sorted(group[0] for group in grouping)
    assert len(set(found)) > 4 and found[0] == at_random(like, np.random.default_rng(0))


def test_a_random_control_is_another_grouping():
    pairs = ((2, 3), (1, 0))
    found = {at_random(pairs, np.random.default_rng(seed)) for seed in range(20)}
    assert found == {((0, 2), (1, 3)), ((0, 3), (1, 2))}
    rng = np.random.default_rng(0)
    assert at_random(((0, 1, 2),), rng) == ((0, 1, 2),) and at_random(((1,), (0,)), rng) == ((0,), (1,))


def test_within_and_between_by_hand():
    pairs = ((0, 1), (2, 3))
    assert within(TWO_PAIRS, pairs) == pytest.approx((0.9 + 0.7) / 2)
    assert between(TWO_PAIRS, pairs) == pytest.approx((0.1 + 0.0 + 0.2 + 0.1) / 4)
    assert within(TWO_PAIRS, ((0,), (1,), (2,), (3,))) is None
    assert between(TWO_PAIRS, ((0, 1, 2, 3),)) is None
    unknown = TWO_PAIRS.copy()
    unknown[0, 1] = unknown[1, 0] = NAN
    assert within(unknown, pairs) == pytest.approx(0.7)


# Conflict and interference


def test_conflict_by_hand():
    right, up, left = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)
    gone = (NAN, NAN)
    found = conflict(torch.tensor([[right, up, left], [right, right, gone]]))
    # First batch: cosines 0, -1, 0; second: 1.
    assert found.pairs == 4 and found.rate == pytest.approx(1 / 4)
    assert found.difference == pytest.approx((0.5 + 1 + 0.5 + 0) / 4)
    assert found.angle == pytest.approx((90 + 180 + 90 + 0) / 4)
    assert found.cosine[0, 1] == pytest.approx(0.5) and found.cosine[0, 2] == pytest.approx(-1)
    calm = conflict(torch.tensor([[right, (1.0, 1.0), right]]))
    assert reduction(found, calm) == pytest.approx(1 - calm.difference / 0.5)
    assert reduction(found, found) == 0


def test_interference_by_hand():
    single = np.array([[0.90, 0.80], [0.92, 0.80]])
    multi = np.array([[0.90, 0.79], [0.88, 0.81]])
    margin = np.array([0.021, 0.005])
    found = interference(multi, single, margin)
    assert found.rate == pytest.approx(2 / 4)  # -0.04 of the first, -0.01 of the second
    assert found.null_rate == 0  # 0.02 apart is not more than 0.021
    assert interference(multi, single, margin / 2).null_rate == pytest.approx(1 / 4)
    assert found.gain.tolist() == pytest.approx([-0.02, 0.0])
    limit = stats.t.ppf(0.95, 1) * np.array([0.04, 0.02]) / np.sqrt(2) / np.sqrt(2)
    assert found.lower.tolist() == pytest.approx([-0.02 - limit[0], 0.0 - limit[1]])
    assert found.relative == pytest.approx((-0.02 / 0.91 + 0) / 2)
    alone = interference(multi[:1], single[:1], margin)
    assert math.isnan(alone.null_rate) and np.isnan(alone.lower).all()


def test_margins_are_half_a_point_or_one_standard_error():
    found = margins(np.array([[0.9, 0.999], [0.7, 0.999]]), np.array([100, 10000]))
    assert found.tolist() == pytest.approx([math.sqrt(0.8 * 0.2 / 100), conflicts.LEAST_MARGIN])


def test_equal_networks_interfere_at_the_null_rate():
    scores = 0.9 + 0.02 * np.random.default_rng(0).standard_normal((2, 40, 6))
    found = interference(scores[0], scores[1], np.full(6, 0.01))
    assert found.rate == pytest.approx(found.null_rate, abs=0.06) and 0.2 < found.null_rate < 0.5


# Separation, speed and roughness


def clusters(apart, seed=0, n=60):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return rng.standard_normal((n, 5)) + apart * np.eye(3, 5)[labels], labels


def test_cluster_distance_by_hand():
    points = np.array([[0.0, 1], [0, -1], [6, 1], [6, -1], [0, 9], [0, 7]])
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert cluster_distance(points, labels) == pytest.approx((6 + 8 + 10) / 3)
    assert cluster_distance(10 * points - 4, labels) == pytest.approx((6 + 8 + 10) / 3)
    assert cluster_distance(points * [1, 2], labels) == pytest.approx((6 + 16 + math.hypot(6, 16)) / 3 / 2)


def test_separability_rises_as_clusters_part():
    measures = []
    for apart in (0.0, 2.0, 8.0):
        (features, labels), (others, their) = clusters(apart), clusters(apart, seed=1)
        row = [linear_probe(features, labels, others, their), cluster_distance(features, labels)]
        measures.append([*row, silhouette(features, labels)])
    for column in zip(*measures, strict=True):
        assert list(column) == sorted(column)
    assert measures[0][0] < 0.55 and measures[2][0] > 0.95


def test_steps_to_a_score():
    assert steps_to(0.8, [0, 100, 200, 300], [0.2, 0.6, 1.0, 0.7]) == pytest.approx(150)
    assert steps_to(0.6, [0, 100, 200], [0.2, 0.6, 1.0]) == 100
    assert steps_to(0.1, [50, 100], [0.2, 0.6]) == 50
    assert steps_to(0.9, [0, 100], [0.2, 0.6]) is None


def test_valleys_of_every_shape_are_smooth_and_ripples_rough():
    axis = np.linspace(-1, 1, 11)
    x, y = axis[:, None], axis[None, :]
    square = x**2 + y**2
    valleys = {
        "bowl": 3 + x + 2 * x * y + 5 * y**2,
        "flat then steep": 0.1 + square**3,
        "very steep": np.exp(6 * square),
        "flat outside": 1.1 - np.exp(-4 * square),
        "kinked": 0.1 + np.abs(x - 0.3) + np.abs(y),
        "slope": np.exp(x + 2 * y),
    }
    for name, surface in valleys.items():
        assert roughness(surface) == pytest.approx(0, abs=1e-12), name
    assert roughness(np.full((5, 5), 7.0)) == 0
    bowl, bumps = 0.5 + square, np.random.default_rng(0).random((11, 11))
    grades = [roughness(bowl + share * bumps) for share in (0, 0.1, 0.5, 2.0)]
    assert grades == sorted(grades) and grades[0] < 1e-12 and grades[1] > 1e-4 and 0.4 < grades[3] < 1
    assert roughness(bowl + 0.4 * np.sin(12 * x) * np.sin(12 * y)) > 0.1
    assert roughness(1e6 * (bowl + bumps)) == pytest.approx(roughness(bowl + bumps))
    assert roughness((bowl + bumps).T) == pytest.approx(roughness(bowl + bumps))


def test_roughness_of_a_row_by_hand():
    """Two halvings, a doubling, a halving, a doubling: of the five, two are too many."""
    assert roughness(np.tile([4.0, 1, 2, 1, 2], (5, 1))) == pytest.approx(2 / 5)


def test_loss_surface_of_a_quadratic_is_a_bowl_around_the_parameters():
    weight, bias = drawn(4, 3), drawn(4, seed=5)

    def loss(parameters):
        assert torch.equal(parameters["bias"], bias)  # has no filters
        return (parameters["weight"] - weight).square().sum()

    surface = loss_surface(loss, {"weight": weight, "bias": bias}, torch.Generator().manual_seed(0), points=5)
    assert surface.shape == (5, 5) and surface[2, 2] == 0 and roughness(surface + 1) < 1e-9
    # A direction is as long as the parameters, filter by filter.
    assert surface[4, 2] == pytest.approx(float(weight.square().sum()), rel=1e-5)
    again = loss_surface(loss, {"weight": weight, "bias": bias}, torch.Generator().manual_seed(0), points=5)
    assert np.array_equal(surface, again)


# Shared channels


def test_channels_used_and_shared_by_hand():
    rows = torch.tensor([[8.0, 1.5, 0.5, 0.0], [0.0, 5.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
    assert used(rows, 0.9).tolist() == [[True, True, False, False], [False, True, False, True], [False] * 4]
    assert used(rows, 0.5).tolist()[0] == [True, False, False, False]
    assert shared(rows) == pytest.approx(1 / 2)  # the second, of two each
    assert shared(torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 0]]), 1.0) == pytest.approx((1 / 4 + 1) / 2)
    assert overlap(rows)[0, 1] == pytest.approx(1 / 3) and overlap(rows)[0, 2] == 0
    assert math.isnan(shared(torch.zeros(2, 3))) and shared(torch.ones(2, 3), 1.0) == 1


def test_sharing_is_read_from_the_maps_and_not_from_who_may_read_them():
    """A layer that all may read, of which each of two tasks reads its own half, shares nothing."""
    maps = drawn(8, 6, 3, 3).requires_grad_()
    halves = [maps[:, :3].square().sum(), maps[:, 3:].square().sum()]
    apart = [importance(taken(maps, torch.autograd.grad(s, maps)[0]).detach()) for s in halves]
    assert shared(torch.stack(apart)) == 0
    whole = importance(taken(maps, torch.autograd.grad(maps.square().sum(), maps)[0]).detach())
    assert shared(torch.stack([whole, whole])) == 1


# Pictures


def test_pictures_hold_their_names_and_numbers():
    unknown = TWO_PAIRS.copy()
    unknown[0, 3] = unknown[3, 0] = NAN
    names = ["defect $1", "机理", "extent", "quadrant"]
    bumps = {"cross-entropy": drawn(5, 5).numpy(), "flat": np.ones((5, 5))}
    points = clusters(4.0)
    pictures = {
        "defect $1 机理 0.90 0.70 ? mean of 9": lambda: draw_relatedness(
            names, unknown, ((0, 2), (1, 3)), "mean of 9"
        ),
        "one many extent about": lambda: draw_maps(dict.fromkeys(("one", "many"), points), names[1:], "about"),
        "cross-entropy flat roughness 0.123": lambda: draw_surfaces(bumps, dict.fromkeys(bumps, 0.1234), "x"),
    }
    for words, draw in pictures.items():
        content = draw()
        assert content == draw()
        assert all(word in content.decode() for word in words.split())


def test_map_keeps_neighbours_together():
    features, labels = clusters(12.0, n=45)
    places = flat_map(np.hstack([features, np.zeros((45, 60))]), 0)
    assert places.shape == (45, 2) and silhouette(places, labels) > 0.5


# Reading a network


def test_reading_finds_what_each_task_uses_in_every_layer():
    """Two tasks of which each reads half of the second layer, and all of the first."""
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 6, 3)
    images = drawn(5, 1, 9, 9)

    def logits(batch):
        maps = second(first(batch).relu()).relu().mean((2, 3))
        return torch.cat([maps[:, :3], maps[:, 3:]], 1)

    found = read([first, second], second, logits, [slice(0, 3), slice(3, 6)], images)
    assert [each.shape for each in found.importance] == [(2, 4), (2, 6)]
    assert found.maps.shape == (2, 5, 6, 5, 5)
    assert (found.importance[1][0, 3:] == 0).all() and (found.importance[1][1, :3] == 0).all()
    assert shared(found.importance[1]) == 0 and shared(found.importance[0], 1.0) == 1
    # By hand: the strongest answer's own channel, where it is above zero, over the places of its mean.
    maps = second(first(images).relu()).detach()
    means = maps.relu().mean((2, 3))[:, :3]
    for n, channel in enumerate(means.argmax(1).tolist()):
        wanted = maps[n, channel].clamp(min=0) / 25
        assert torch.allclose(found.maps[0, n, channel], wanted, atol=1e-7)
    assert not first._forward_hooks and not second._forward_hooks
