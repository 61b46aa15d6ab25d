import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steelshift.losses.auxiliary import difference_loss, scale_invariant_error
from steelshift.losses.domain import accuracy, adaptation_loss, conditioned, separation_loss
from steelshift.losses.embedded import Triplets, distance, embed, mine, pull_factor
from steelshift.losses.weights import daan_weight, dwa_weights, hdml_weight, ratio_weight
from steelshift.methods.running import PairWeights, RunningMean
from steelshift.nn.reversal import ramp

LN2, LN3 = math.log(2), math.log(3)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# 1.4 Adaptation.


def test_adaptation_is_ln2_at_chance_and_0_when_told_apart():
    chance = torch.zeros(6, 1)
    assert adaptation_loss(chance, chance).item() == pytest.approx(LN2)
    assert adaptation_loss(chance + 50, chance - 50).item() == pytest.approx(0, abs=1e-6)
    assert adaptation_loss(chance - 9, chance + 9) > 8


def test_smoothed_adaptation_has_its_floor():
    logit = torch.full((5, 1), math.log(9))
    assert adaptation_loss(logit, -logit, 0.1).item() == pytest.approx(0.3251, abs=5e-5)
    for away in (0.7, 1.3):
        assert adaptation_loss(away * logit, -away * logit, 0.1) > 0.3251


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_adaptation_weighs_lines_alike_whatever_their_sizes(smoothing):
    source, target = normal(7, 1), normal(3, 1, seed=1)

    def cross_entropy(logit, label):
        p = 1 / (1 + math.exp(-logit))
        return -label * math.log(p) - (1 - label) * math.log(1 - p)

    wanted = sum(cross_entropy(float(x), 1 - smoothing) for x in source) / 14
    wanted += sum(cross_entropy(float(x), smoothing) for x in target) / 6
    assert adaptation_loss(source, target, smoothing).item() == pytest.approx(wanted, rel=1e-5)


# 1.5 Separation.


@pytest.mark.parametrize(
    ("logits", "labels", "reduction", "value"),
    [
        ([0, 0, 0], "three_way", "per_sample", 1.0986),
        ([0, 0, 0], "three_way", "per_term", 1.0986),
        ([math.log(0.5), math.log(0.25), math.log(0.25)], "three_way", "per_sample", 1.0397),
        ([0, 0], "two_way", "per_sample", 0.6931),
        ([0, 0], "two_way", "per_term", 0.6931),
    ],
)
def test_separation_at_chance(logits, labels, reduction, value):
    each = torch.tensor(logits, dtype=torch.float32).repeat(20, 1)
    assert separation_loss(each, 5, labels, reduction).item() == pytest.approx(value, abs=5e-5)


def test_smoothed_separation_has_its_floor():
    truth = torch.tensor([0, 0, 1, 2]).repeat_interleave(5)
    best = torch.full((20, 3), math.log(0.1))
    best[torch.arange(20), truth] = math.log(0.8)
    assert separation_loss(best, 5, smoothing=0.2).item() == pytest.approx(0.6390, abs=5e-5)
    assert separation_loss(1.2 * best, 5, smoothing=0.2) > 0.6390
    assert separation_loss(50 * best, 5).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "reduction", "smoothing"),
    list(product(["three_way", "two_way"], ["per_sample", "per_term"], [0.0, 0.2])),
)
def test_separation_equals_its_definition(labels, reduction, smoothing):
    batch, classes = 4, 3 if labels == "three_way" else 2
    logits = normal(4 * batch, classes)
    truth = [0] * (2 * batch) + [1] * batch + [2 if classes == 3 else 1] * batch
    losses = {}
    for row, right in zip(logits.tolist(), truth, strict=True):
        total = sum(math.exp(x) for x in row)
        logs = [math.log(math.exp(x) / total) for x in row]
        loss = -sum((1 - smoothing if k == right else smoothing / (classes - 1)) * logs[k] for k in range(classes))
        losses.setdefault(right, []).append(loss)
    if reduction == "per_sample":
        wanted = sum(map(sum, losses.values())) / (4 * batch)
    else:
        wanted = sum(sum(each) / len(each) for each in losses.values()) / len(losses)
    assert separation_loss(logits, batch, labels, reduction, smoothing).item() == pytest.approx(wanted, rel=1e-5)


def test_conditioned_is_every_feature_times_every_probability():
    features, logits = normal(3, 4).requires_grad_(), normal(3, 2, seed=1).requires_grad_()
    joined = conditioned(features, logits)
    values, probabilities = features.detach(), logits.detach().softmax(1)
    for b, k, f in product(range(3), range(2), range(4)):
        assert joined[b, k * 4 + f].item() == pytest.approx(float(probabilities[b, k] * values[b, f]), abs=1e-6)
    joined.sum().backward()
    assert logits.grad is None and torch.allclose(features.grad, torch.ones(3, 4))


def test_accuracy_counts_right_answers():
    assert accuracy(torch.tensor([[2.0], [-1.0], [3.0]]), torch.tensor([1, 0, 0])).item() == pytest.approx(2 / 3)
    assert accuracy(torch.eye(3), torch.tensor([0, 1, 1])).item() == pytest.approx(2 / 3)


# 1.6 Mining.


def points(seed=0, count=14, classes=3):
    """Features, and labels of which some are unknown and one class has a single sample."""
    labels = torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))
    labels[0], labels[1] = classes, -1
    return normal(count, 5, seed=seed), labels


def rows_of(values, features):
    """Which row of features each of values is."""
    return [int((features == value).all(1).nonzero()[0, 0]) for value in values]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("positive", ["random", "farthest", "centroid"])
@pytest.mark.parametrize("negative", ["random", "nearest", "semihard", "all_pairs"])
def test_mining_keeps_its_definition(positive, negative, seed):
    features, labels = points(seed)
    triplets = mine(features, labels, positive, negative)
    anchors, negatives = rows_of(triplets.anchor, features), rows_of(triplets.negative, features)
    able = [i for i in range(14) if labels[i] >= 0 and int((labels == labels[i]).sum()) > 1]
    others = {i: [j for j in range(14) if labels[j] >= 0 and labels[j] != labels[i]] for i in able}
    if negative == "all_pairs":
        assert sorted(zip(anchors, negatives, strict=True)) == sorted((i, j) for i in able for j in others[i])
    else:
        assert anchors == able
    assert triplets.negative_label.tolist() == labels[negatives].tolist()
    for at, (i, j) in enumerate(zip(anchors, negatives, strict=True)):
        twins = [k for k in able if labels[k] == labels[i] and k != i]
        if positive == "centroid":
            assert torch.allclose(triplets.positive[at], features[twins].mean(0), atol=1e-6)
        else:
            [chosen] = rows_of(triplets.positive[at : at + 1], features)
            assert chosen in twins
            if positive == "farthest":
                assert chosen == max(twins, key=lambda k: float((features[i] - features[k]).norm()))
        far = {k: float((features[i] - features[k]).norm()) for k in others[i]}
        assert j in far
        nearest = min(far, key=far.get)
        beyond = {k: d for k, d in far.items() if d > float((triplets.positive[at] - features[i]).norm())}
        if negative == "nearest":
            assert j == nearest
        if negative == "semihard":
            assert j == (min(beyond, key=beyond.get) if beyond else nearest)


def test_random_mining_reaches_every_pair_and_follows_torchs_generator():
    features, labels = points(3)
    seen, runs = set(), []
    for seed in (*range(200), 0):
        torch.manual_seed(seed)
        triplets = mine(features, labels)
        named = (rows_of(triplets.anchor, features), rows_of(triplets.positive, features))
        runs.append((*named, rows_of(triplets.negative, features)))
        seen |= set(zip(named[0], named[1], strict=True))
    known = [i for i in range(14) if labels[i] >= 0]
    assert seen == {(i, j) for i in known for j in known if i != j and labels[i] == labels[j]}
    assert runs[0] == runs[-1] != runs[1]


@pytest.mark.parametrize("labels", [[1] * 6, [0, 1, 2, 3, 4, 5], [-1] * 6, [0, 0, -1, -1, -1, -1], [0]])
@pytest.mark.parametrize("negative", ["random", "nearest", "semihard", "all_pairs"])
def test_without_pairs_there_are_no_triplets(labels, negative):
    triplets = mine(normal(len(labels), 4), torch.tensor(labels), "random", negative)
    assert len(triplets) == 0
    new, new_labels, valid = embed(triplets, torch.tensor(0.5))
    assert new.shape == (0, 4) and len(new_labels) == len(valid) == 0


# 1.6 Embedding.


def triplet(anchor, positive, negative):
    return Triplets(
        *(torch.tensor([each], dtype=torch.float32) for each in (anchor, positive, negative)), torch.tensor([2])
    )


SAMPLE = triplet((0, 0), (1, 0), (4, 0))


@pytest.mark.parametrize(("lam", "wanted"), [(0.25, 1.75), (0.36788, 2.10364), (1.0, 4.0), (0.0, 1.0)])
def test_embedded_points_of_the_text(lam, wanted):
    new, label, valid = embed(SAMPLE, torch.tensor(lam))
    assert new[0].tolist() == pytest.approx([wanted, 0], abs=2e-5)
    assert label.tolist() == [2] and valid.tolist() == [True]


def test_linear_is_lambda_of_the_way():
    new, *_ = embed(SAMPLE, torch.tensor(0.25), "linear")
    assert new[0].tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize(
    ("loss", "pull", "factor"),
    [
        (1, 1, 0.36788),
        (1.79, 1, 0.572),
        (0.5, 1, 0.135),
        (0.5, 0.35, 0.497),
        (math.inf, 7, 1),
        (0, 1, 0),
        (1.79, 7, 0.02),
    ],
)
def test_the_pull_factor(loss, pull, factor):
    assert pull_factor(pull, torch.tensor(float(loss))).item() == pytest.approx(factor, abs=5e-4)
    assert pull_factor(torch.tensor(float(pull)), torch.tensor(float(loss))).item() == pytest.approx(factor, abs=5e-4)


def test_the_pull_factor_carries_no_gradient():
    assert not pull_factor(1.0, torch.tensor(1.0, requires_grad=True)).requires_grad


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), lam=st.floats(0, 1), t_min=st.floats(0, 1))
def test_an_embedded_point_lies_between_positive_and_negative_distance(seed, lam, t_min):
    triplets = mine(*points(seed))
    new, _, valid = embed(triplets, torch.tensor(lam), t_min=0.0)
    away, near, far = (distance(triplets.anchor, other)[:, 0] for other in (new, triplets.positive, triplets.negative))
    assert torch.equal(valid, near < far)
    assert torch.allclose(away[valid], (lam * far + (1 - lam) * near)[valid], atol=1e-4)
    assert (away[valid] >= near[valid] - 1e-4).all() and (away[valid] <= far[valid] + 1e-4).all()
    assert torch.allclose(new[~valid], triplets.negative[~valid], atol=1e-5)
    clamped, labels, _ = embed(triplets, torch.tensor(lam), t_min=t_min)
    place = distance(triplets.anchor, clamped)[:, 0] / far
    assert (place >= t_min - 1e-4).all() and torch.equal(labels, triplets.negative_label)
    assert torch.allclose(place, (away / far).clamp(min=t_min), atol=1e-3)


def test_invalid_triplets_are_kept_as_the_negative_or_dropped():
    pair = Triplets(
        *(torch.tensor(each) for each in ([[0.0], [0.0]], [[5.0], [1.0]], [[2.0], [3.0]])), torch.tensor([7, 8])
    )
    new, labels, valid = embed(pair, torch.tensor(0.5))
    assert valid.tolist() == [False, True] and new[:, 0].tolist() == pytest.approx([2, 2]) and labels.tolist() == [7, 8]
    new, labels, valid = embed(pair, torch.tensor(0.5), invalid="drop")
    assert valid.tolist() == [False, True] and new[:, 0].tolist() == pytest.approx([2]) and labels.tolist() == [8]


@pytest.mark.parametrize("form", ["hdml", "linear"])
@pytest.mark.parametrize(
    ("positive", "negative"), [((1, 1), (1, 1)), ((0, 0), (1, 1)), ((1, 1), (0, 0)), ((0, 0), (0, 0))]
)
def test_gradients_stay_finite_where_points_coincide(form, positive, negative):
    anchor = torch.zeros(1, 2, requires_grad=True)
    others = [torch.tensor([each], dtype=torch.float32, requires_grad=True) for each in (positive, negative)]
    new, *_ = embed(Triplets(anchor, *others, torch.tensor([0])), torch.tensor(0.5), form)
    (new - 3).square().sum().backward()
    for leaf in (anchor, *others):
        assert new.isfinite().all() and (leaf.grad is None or leaf.grad.isfinite().all())


def test_embedding_sends_gradients_through_all_three_points():
    leaves = [normal(6, 3, seed=seed).requires_grad_() for seed in (0, 1, 2)]
    near = leaves[0] + 0.1 * leaves[1]
    new, *_ = embed(Triplets(leaves[0], near, leaves[2], torch.zeros(6, dtype=torch.long)), torch.tensor(0.3))
    new.square().sum().backward()
    assert all(leaf.grad.abs().min() > 0 for leaf in leaves)


# 1.7 and 1.8 Weights.


def test_the_class_weight_of_the_text():
    w = hdml_weight(torch.tensor(2.0))
    assert w.item() == pytest.approx(0.60653, abs=1e-5)
    assert (w * 1 + (1 - w) * 2).item() == pytest.approx(1.39347, abs=1e-5)
    assert hdml_weight(torch.tensor(math.inf)).item() == 1
    assert hdml_weight(torch.tensor(0.0)).item() == 0
    assert hdml_weight(torch.tensor(0.2)).item() == pytest.approx(0.0067, abs=1e-4)
    assert hdml_weight(torch.tensor([0.0, 2.0, math.inf]), 1.0, (0.1, 0.9)).tolist() == pytest.approx(
        [0.1, 0.60653, 0.9], abs=1e-5
    )
    assert hdml_weight(torch.tensor(2.0), 3.0).item() == pytest.approx(math.exp(-1.5))


def test_noisy_synthetics_have_bounded_weight():
    loss = torch.tensor(1e4)
    assert ((1 - hdml_weight(loss)) * loss).item() == pytest.approx(1.0, abs=1e-2)


def test_the_loss_ratio_of_the_text():
    adapt, sep = torch.tensor(LN2), torch.tensor(LN3)
    a = ratio_weight(adapt, sep)
    assert a.item() == pytest.approx(0.38685, abs=5e-6)
    assert (1 - a).item() == pytest.approx(0.61315, abs=5e-6)
    assert (a * adapt + (1 - a) * sep).item() == pytest.approx(0.94176, abs=1e-5)
    assert ratio_weight(torch.tensor(0.0), torch.tensor(0.0)).isfinite()


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [
        (0.1, 0.1, 0.5),
        (0.5, 0.0, 0.0),
        (0.0, 0.5, 1.0),
        (0.25, 0.0, 1 / 3),
        (0.5, 0.5, 0.5),
        (0.9, 0.9, 0.5),
        (0.9, 0.2, 0.0),
    ],
)
def test_daan_weighs_by_distance(first, second, weight):
    assert daan_weight(torch.tensor(first), torch.tensor(second)).item() == pytest.approx(weight, abs=1e-6)


def test_dwa_favours_the_loss_that_falls_slower():
    weights = dwa_weights(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 1.0]))
    one, other = math.exp(0.5), math.exp(0.25)
    assert weights.tolist() == pytest.approx([2 * one / (one + other), 2 * other / (one + other)])
    for unknown in ([math.inf, 1.0], [math.inf, math.inf]):
        assert dwa_weights(torch.tensor([1.0, 0.5]), torch.tensor(unknown)).tolist() == [1, 1]


@pytest.mark.parametrize(
    "weigh",
    [
        lambda x: hdml_weight(x),
        lambda x: ratio_weight(x, x + 1),
        lambda x: daan_weight(x, x / 2),
        lambda x: PairWeights(2).uncertainty(),
    ],
)
def test_weights_carry_no_gradient(weigh):
    assert not weigh(torch.tensor(0.3, requires_grad=True)).requires_grad


def test_uncertainty_weights_are_learned_toward_the_losses():
    pair, losses = PairWeights(2), (torch.tensor(4.0, requires_grad=True), torch.tensor(0.5))
    assert pair.uncertainty().tolist() == pytest.approx([0.5 * math.exp(0.5)] * 2)
    wanted = sum(0.5 * math.exp(0.5) * x - 0.25 for x in (4.0, 0.5))
    assert pair.uncertainty_loss(*losses).item() == pytest.approx(wanted, rel=1e-5)
    optimizer = torch.optim.SGD(pair.parameters(), 0.3)
    for _ in range(500):
        optimizer.zero_grad()
        pair.uncertainty_loss(*losses).backward()
        optimizer.step()
    assert losses[0].grad is None
    assert pair.log_variance.tolist() == pytest.approx([math.log(4), math.log(0.5)], abs=1e-2)


def feed(mean, *losses):
    found = []
    for loss in losses:
        found.append(mean.control(torch.tensor(loss)).item())
        mean.update(torch.tensor(loss))
    return found


def test_running_means():
    assert feed(RunningMean("epoch_mean", 2), 1.0, 3.0, 5.0, 6.0, 0.0) == [math.inf, math.inf, 2, 2, 5.5]
    assert feed(RunningMean("ema", 2), 1.0, 3.0, 0.0) == pytest.approx([math.inf, 1, 1.2])
    assert feed(RunningMean("batch", 2), 1.0, 3.0) == [1, 3]


def test_a_running_mean_passes_over_what_is_not_finite():
    for kind in ("epoch_mean", "ema"):
        assert feed(RunningMean(kind, 1), 2.0, math.nan, math.inf, 2.0)[1:] == [2, 2, 2]


@pytest.mark.parametrize(("progress", "value"), [(0, 0), (0.1, 0.4621), (0.25, 0.8483), (0.5, 0.9866), (1, 0.9999)])
def test_the_ramp_of_the_text(progress, value):
    assert ramp(progress) == pytest.approx(value, abs=5e-5)


# Auxiliary losses.


def test_difference_equals_its_definition():
    private, shared = normal(6, 3), normal(6, 4, seed=1)

    def unit_rows(features):
        mean = [sum(column) / len(features) for column in zip(*features, strict=True)]
        rows = [[x - m for x, m in zip(row, mean, strict=True)] for row in features]
        return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]

    p, c = unit_rows(private.tolist()), unit_rows(shared.tolist())
    wanted = sum(sum(p[n][i] * c[n][j] for n in range(6)) ** 2 for i in range(3) for j in range(4)) / 12
    assert difference_loss(private, shared).item() == pytest.approx(wanted, rel=1e-4)


def test_difference_is_0_where_features_have_nothing_in_common():
    one = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
    other = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    assert difference_loss(one, other).item() == pytest.approx(0, abs=1e-7)
    assert difference_loss(one, one) > 1
    constant = torch.ones(4, 2, requires_grad=True)
    difference_loss(constant, other).backward()
    assert constant.grad.isfinite().all()


def test_reconstruction_forgives_brightness_and_nothing_else():
    truth, guess = normal(3, 1, 4, 4), normal(3, 1, 4, 4, seed=1)
    shift = torch.tensor([1.0, -2.0, 7.0]).reshape(3, 1, 1, 1)
    error = scale_invariant_error(guess, truth)
    assert scale_invariant_error(guess + shift, truth).item() == pytest.approx(error.item(), rel=1e-4)
    assert scale_invariant_error(truth + shift, truth).item() == pytest.approx(0, abs=1e-5)
    assert scale_invariant_error(2 * guess - truth, truth).item() == pytest.approx(4 * error.item(), rel=1e-4)
    wanted = sum(float((guess[i] - truth[i]).var(correction=0)) for i in range(3)) / 3
    assert error.item() == pytest.approx(wanted, rel=1e-4)
