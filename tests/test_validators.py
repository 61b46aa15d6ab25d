"""Each judge against a slow reference written from its formula, and at its edges."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.cluster import KMeans

from steelshift.selection import validators
from steelshift.selection.answers import Answers
from steelshift.selection.validators import Seen, score
from steelshift.training.config import Config

NEW = ("entropy", "bnm", "snd", "dev", "devn", "class_ami", "mixval", "circular")


def chances(seed: int, count: int = 30, classes: int = 4, sharpness: float = 2.0) -> np.ndarray:
    return softmax(np.random.default_rng(seed).normal(0, sharpness, (count, classes)), axis=1)


def blobs(seed: int, count: int, shift: float = 0.0, apart: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, 5) around three corners, and which corner."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, count)
    return apart * np.eye(5)[truth] + rng.normal(0, 1, (count, 5)) + shift, truth


def one_hot(truth: np.ndarray, classes: int = 3) -> np.ndarray:
    return 9.0 * np.eye(classes)[truth]


@pytest.mark.parametrize("seed", range(3))
def test_entropy(seed: int) -> None:
    p = chances(seed)
    wanted = sum(x * math.log(x) for row in p for x in row) / len(p)
    assert validators.negative_entropy(p) == pytest.approx(wanted)
    assert validators.negative_entropy(np.eye(3)) == pytest.approx(0)
    assert validators.negative_entropy(np.full((1, 4), 0.25)) == pytest.approx(-math.log(4))


@pytest.mark.parametrize(("count", "classes"), [(30, 4), (2, 5), (1, 3)])
def test_nuclear_norm(count: int, classes: int) -> None:
    p = chances(1, count, classes)
    wanted = np.sqrt(np.clip(np.linalg.eigvalsh(p.T @ p), 0, None)).sum() / count
    assert validators.nuclear_norm(p) == pytest.approx(wanted, abs=1e-7)
    balanced, collapsed = np.eye(4)[np.arange(40) % 4], np.eye(4)[np.zeros(40, int)]
    assert validators.nuclear_norm(balanced) == pytest.approx(math.sqrt(4 / 40))
    assert validators.nuclear_norm(collapsed) == pytest.approx(math.sqrt(1 / 40))


@pytest.mark.parametrize("count", [2, 3, 25])
def test_neighbourhood_density(count: int) -> None:
    p = chances(2, count)
    each = []
    for i in range(count):
        others = [j for j in range(count) if j != i]
        cosines = [p[i] @ p[j] / math.sqrt(p[i] @ p[i]) / math.sqrt(p[j] @ p[j]) for j in others]
        weights = [math.exp(cosine / 0.05) for cosine in cosines]
        each.append(-sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights))
    assert validators.neighbourhood_density(p) == pytest.approx(np.mean(each))
    assert validators.neighbourhood_density(p[:1]) == 0
    assert validators.neighbourhood_density(np.full((10, 3), 1 / 3)) == pytest.approx(math.log(9))


@pytest.mark.parametrize("seed", range(3))
def test_dev_is_its_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights, losses = rng.gamma(2, 1, 40), rng.exponential(1, 40)
    weighted = [w * loss for w, loss in zip(weights, losses, strict=True)]
    mean, mean_weight = sum(weighted) / 40, sum(weights) / 40
    covariance = sum((a - mean) * (w - mean_weight) for a, w in zip(weighted, weights, strict=True)) / 39
    variance = sum((w - mean_weight) ** 2 for w in weights) / 39
    eta = -covariance / variance
    assert validators.dev(weights, losses) == pytest.approx(-(mean + eta * mean_weight - eta))


def test_dev_of_equal_weights_is_the_plain_mean() -> None:
    losses = np.array([0.2, 1.0, 0.6])
    assert validators.dev(np.full(3, 2.0), losses) == pytest.approx(-1.2)
    assert validators.dev(np.array([3.0]), losses[:1]) == pytest.approx(-0.6)
    assert validators.devn(np.full(4, 0.3), np.array([True, False, False, False])) == pytest.approx(-0.25)


def test_devn_is_bounded_whatever_a_single_weight_is() -> None:
    rng = np.random.default_rng(0)
    weights, wrong = rng.gamma(1, 1, 50), rng.random(50) < 0.3
    scaled = weights / weights.max()
    wanted = -np.mean([(w - scaled.mean() + 1) * e for w, e in zip(scaled, wrong, strict=True)])
    assert validators.devn(weights, wrong) == pytest.approx(wanted)
    weights[0], wrong[0] = 1e9, True
    assert -1 <= validators.devn(weights, wrong) <= 0


def test_the_density_ratio_is_that_of_a_regularized_logistic_regression() -> None:
    source, target = blobs(0, 40)[0], blobs(1, 60, shift=1.0)[0]
    both = np.concatenate([source, target])
    mean, spread = both.mean(0), both.std(0)
    x, y = (both - mean) / spread, np.repeat([-1.0, 1.0], [40, 60])

    def cost(w: np.ndarray) -> float:
        return 0.5 * w[:5] @ w[:5] + 0.01 * np.log1p(np.exp(-y * (x @ w[:5] + w[5]))).sum()

    w = minimize(cost, np.zeros(6), tol=1e-12).x
    found = validators.density_ratio(source, target, source[:7])
    assert found == pytest.approx(np.exp((source[:7] - mean) / spread @ w[:5] + w[5]) * 40 / 60, rel=1e-2)


def test_the_density_ratio_is_about_1_for_equal_lines_and_larger_where_the_target_is() -> None:
    alike = validators.density_ratio(blobs(0, 300)[0], blobs(1, 150)[0], blobs(2, 100)[0])
    assert alike.mean() == pytest.approx(1, abs=0.15) and alike.min() > 0
    apart = validators.density_ratio(blobs(0, 300)[0], blobs(1, 150, shift=3)[0], np.array([[0.0] * 5, [4.0] * 5]))
    assert apart[0] < 0.5 < 2 < apart[1]
    assert np.allclose(validators.density_ratio(np.ones((9, 3)), np.ones((9, 3)), np.ones((2, 3))), 1)


def test_class_ami() -> None:
    features, truth = blobs(0, 90)
    clusters = KMeans(3, n_init=3, random_state=0).fit_predict(features)
    predicted = np.where(np.arange(90) % 4 == 0, (truth + 1) % 3, truth)
    table = np.array([[((predicted == i) & (clusters == j)).sum() for j in range(3)] for i in range(3)])
    wanted = adjusted(table, predicted, clusters)
    assert validators.class_ami(features, predicted, 3) == pytest.approx(wanted, abs=2e-3)
    assert validators.class_ami(features, truth, 3) == pytest.approx(1)
    guessed = np.random.default_rng(9).integers(0, 3, 90)
    assert abs(validators.class_ami(features, guessed, 3)) < 0.1
    assert validators.class_ami(features, np.zeros(90, int), 3) == 0
    assert validators.class_ami(np.ones((9, 2)), np.arange(9) % 3, 3) == 0
    assert validators.class_ami(features[:2], np.array([0, 1]), 3) <= 1  # fewer images than classes


def adjusted(table: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """AMI with the chance part by shuffling, 2000 times."""

    def information(table: np.ndarray) -> float:
        p = table / table.sum()
        product = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
        return float((p[p > 0] * np.log(p[p > 0] / product[p > 0])).sum())

    def entropy(values: np.ndarray) -> float:
        p = np.bincount(values) / len(values)
        return -float((p[p > 0] * np.log(p[p > 0])).sum())

    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(second) for _ in range(2000)]
    tables = [[[((first == i) & (other == j)).sum() for j in range(3)] for i in range(3)] for other in shuffled]
    chance = np.mean([information(np.array(each)) for each in tables])
    return (information(table) - chance) / ((entropy(first) + entropy(second)) / 2 - chance)


def test_mixval() -> None:
    first, second = np.array([0, 0, 1, 2, 1, 0]), np.array([0, 1, 1, 0, 2, 0])
    mixed = one_hot(np.array([0, 1, 2, 2, 1, 0]))
    within, between = [1, 0, 1], [0, 1, 1]  # images 0, 2, 5 and 1, 3, 4
    assert validators.mixval(mixed, first, second, 0.55) == pytest.approx((np.mean(within) + np.mean(between)) / 2)
    swapped = validators.mixval(mixed, second, first, 0.45)
    assert swapped == pytest.approx(validators.mixval(mixed, first, second, 0.55))
    assert validators.mixval(one_hot(np.zeros(4, int)), np.zeros(4, int), np.zeros(4, int), 0.55) == 0.5  # a collapse
    assert validators.mixval(one_hot(np.array([0, 1])), np.array([0, 1]), np.array([1, 0]), 0.55) == 1
    assert validators.mixval(one_hot(np.array([1])), np.array([1]), np.array([1]), 0.55) == 0.5  # one image


def test_circular_knows_right_answers_from_wrong_ones() -> None:
    (target, truth), (source, source_truth) = blobs(0, 120, shift=0.5), blobs(1, 40)
    right = validators.circular(target, truth, source, source_truth)
    assert right > 0.95
    # The nearest corner of each answer's images, by hand, says the same on corners so far apart.
    corners = np.array([target[truth == k].mean(0) for k in range(3)])
    nearest = ((source[:, None] - corners) ** 2).sum(2).argmin(1)
    wanted = np.mean([(nearest[source_truth == k] == k).mean() for k in range(3)])
    assert right == pytest.approx(wanted, abs=0.03)
    assert validators.circular(target, (truth + 1) % 3, source, source_truth) < 0.05
    assert validators.circular(target, np.ones(120, int), source, source_truth) == pytest.approx(1 / 3)
    two = np.where(truth == 2, 0, truth)
    assert validators.circular(target, two, source, source_truth) == pytest.approx(2 / 3, abs=0.05)


def seen(seed: int, right: float, count: int = 60) -> Seen:
    """A checkpoint on three blobs, right on the source and on that share of the target; the less, the less sure."""
    (source, source_truth), (target, truth) = blobs(seed, count), blobs(seed + 1, count, shift=0.3)
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(count) < right, truth, rng.integers(0, 3, count))
    partner = rng.permutation(count)
    logits = right * one_hot(said) + rng.normal(0, 1 - right, (count, 3))
    return Seen(
        validation=Answers(source, one_hot(source_truth)),
        truth=source_truth,
        target=Answers(target, logits),
        source_training=blobs(seed + 2, count)[0],
        mixed=np.where(rng.random((count, 1)) < right, logits, rng.normal(0, 1, (count, 3))),
        partner=partner,
    )


def test_every_rule_of_the_config_is_a_judge() -> None:
    import typing

    rules = [rule for rule in typing.get_args(typing.get_type_hints(Config)["select"]) if rule != "last"]
    assert set(NEW) <= set(rules)
    for rule in rules:
        found = score(rule, seen(0, 0.9))
        assert type(found) is float and math.isfinite(found), rule
    with pytest.raises(ValueError, match="peeked"):
        score("peeked", seen(0, 0.9))


@pytest.mark.parametrize("rule", ["information_maximization", "bnm", "class_ami", "mixval", "circular", "entropy"])
def test_judges_of_the_target_prefer_the_better_of_two(rule: str) -> None:
    assert all(score(rule, seen(seed, 1.0)) > score(rule, seen(seed, 0.3)) for seed in range(5))


@pytest.mark.parametrize("rule", NEW)
@pytest.mark.parametrize("count", [2, 3])
def test_judges_survive_a_handful_of_images_and_a_single_answer(rule: str, count: int) -> None:
    few = seen(3, 1.0, count)
    assert math.isfinite(score(rule, few))
    features = few.target.features
    alone = Seen(
        validation=few.validation,
        truth=few.truth,
        target=Answers(features, one_hot(np.zeros(count, int))),
        source_training=few.source_training,
        mixed=one_hot(np.zeros(count, int)),
        partner=few.partner,
    )
    assert math.isfinite(score(rule, alone))
