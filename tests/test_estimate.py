"""Estimates against slow references, bound and intervals by simulation, the verdict on lines made to tempt it."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from steelshift.errors import UsageError
from steelshift.estimating import estimate_run
from steelshift.selection import estimate
from steelshift.selection.answers import Answers
from steelshift.selection.estimate import View, interval, judge_blind, labels_needed, more_labels, wilson


def line(
    seed: int,
    shift: float = 0.0,
    *,
    counts: tuple[int, int, int, int] = (300, 200, 300, 150),
    mix: list[float] | None = None,
    strange: float = 0.0,
    noise: float = 1.0,
    networks: int = 1,
) -> tuple[list[View], float]:
    """Two lines of three classes in six features and linear inspectors taught the source; and the first one's accuracy.

    shift: how far the target's classes move, each its own way. mix: of the target's classes. strange: part of the
    target that is of none, far from all.
    """
    rng = np.random.default_rng(seed)
    corners = 3 * np.eye(6)[:3]
    moves = rng.normal(0, 1, (3, 6))
    moves *= shift / np.linalg.norm(moves, axis=1, keepdims=True)

    def draw(count: int, target: bool) -> tuple[np.ndarray, np.ndarray]:
        truth = rng.choice(3, count, p=mix if target and mix else None)
        features = corners[truth] + rng.normal(0, noise, (count, 6)) + (moves[truth] if target else 0)
        if target:
            odd = rng.random(count) < strange
            features[odd] += 12 * np.eye(6)[5]
            truth = np.where(odd, 3, truth)
        return features, truth

    (train, of_train), (held, truth), (unlabelled, _), (test, of_test) = (
        draw(count, target) for count, target in zip(counts, (False, False, True, True), strict=True)
    )
    views = []
    for number in range(networks):
        few = rng.choice(len(train), len(train) // 2, replace=False) if number else slice(None)
        network = LogisticRegression(C=0.1, max_iter=1000).fit(train[few], of_train[few])
        seen = [Answers(part, network.decision_function(part)) for part in (train, held, unlabelled, test)]
        views.append(View(seen[0], seen[1], truth, seen[2], seen[3]))
    return views, float((views[0].target.predicted == of_test).mean())


@pytest.mark.parametrize("seed", range(4))
def test_atc_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target, right = rng.normal(0, 1, 50), rng.normal(-0.5, 1, 80), rng.random(50) < 0.7
    # The threshold below which lies as large a part of the source as is wrong, found by trying all.
    fitting = [t for t in source if (source < t).sum() == (~right).sum()]
    wanted = np.mean([value >= fitting[0] for value in target])
    assert estimate.average_thresholded_confidence(source, right, target) == pytest.approx(wanted)
    assert estimate.average_thresholded_confidence(source, right, source) == pytest.approx(right.mean())
    assert estimate.average_thresholded_confidence(source, np.ones(50, bool), source) == 1
    assert estimate.average_thresholded_confidence(source, np.zeros(50, bool), target) == 0


def test_difference_of_confidences() -> None:
    source, target = np.array([0.9, 0.8, 0.7]), np.array([0.6, 0.6])
    right = np.array([True, True, False])
    assert estimate.difference_of_confidences(source, right, target) == pytest.approx(2 / 3 - 0.2)
    assert estimate.difference_of_confidences(source, right, target - 0.6) == 0
    assert estimate.difference_of_confidences(source, np.ones(3, bool), source) == 1


@pytest.mark.parametrize("seed", range(3))
def test_transport_costs_are_least_over_all_ways_to_give_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(3, 0.5), 6)
    found = estimate.transport_costs(p, np.array([0.5, 1 / 3, 1 / 6]))
    ways = set(itertools.permutations([0, 0, 0, 1, 1, 2]))
    least = min(sum(1 - p[row, label] for row, label in enumerate(way)) for way in ways)
    assert found.sum() == pytest.approx(least)
    # Where the mix is that of the answers, each image takes its own; 4 images in parts of .65 and .35 are 3 and 1.
    sure = np.array([[0.9, 0.1]] * 2 + [[0.2, 0.8]] * 2)
    assert estimate.transport_costs(sure, np.array([0.5, 0.5])) == pytest.approx([0.1, 0.1, 0.2, 0.2])
    assert sorted(estimate.transport_costs(sure, np.array([0.65, 0.35]))) == pytest.approx([0.1, 0.1, 0.2, 0.8])


def test_many_images_are_transported_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    p = np.random.default_rng(0).dirichlet(np.full(3, 0.3), 50)
    mix = p.mean(0)
    whole = estimate.transport_costs(p, mix)
    monkeypatch.setattr(estimate, "MOST_TRANSPORTED", 20)
    parts = estimate.transport_costs(p, mix)
    for turn in range(3):
        assert (parts[turn::3] == estimate.transport_costs(p[turn::3], mix)).all()
    assert parts.mean() == pytest.approx(whole.mean(), abs=0.1)


def test_estimates_are_right_where_the_lines_are_alike_and_ask_for_no_scale() -> None:
    errors = []
    for seed in range(6):
        views, truth = line(seed, networks=2, noise=1.6)
        found = estimate.point_estimates(*views)
        assert set(found) == {"atc", "cot", "cott", "doc", "agreement"}
        errors.append([value - truth for value in found.values()])
        first = views[0]
        hot = View(*(
            part if isinstance(part, np.ndarray) else Answers(part.features, 7 * part.logits)
            for part in (getattr(first, field.name) for field in dataclasses.fields(View))
        ))  # fmt: skip
        assert estimate.point_estimates(hot, views[1]) == pytest.approx(found, abs=0.01)
        assert set(estimate.point_estimates(first, first)) == {"atc", "cot", "cott", "doc"}
    assert np.abs(np.mean(errors, axis=0)).max() < 0.04 and np.abs(errors).max() < 0.12


@pytest.mark.parametrize(("count", "total"), [(0, 20), (3, 20), (20, 20), (1, 1), (140, 200)])
def test_one_sided_binomial_intervals(count: int, total: int) -> None:
    for delta in (0.05, 0.01):
        exact = binomtest(count, total, alternative="less").proportion_ci(1 - delta, method="exact")
        assert estimate.at_most(count, total, delta) == pytest.approx(exact.high)
        exact = binomtest(count, total, alternative="greater").proportion_ci(1 - delta, method="exact")
        assert estimate.at_least(count, total, delta) == pytest.approx(exact.low)


def test_the_concentration_term_is_hoeffdings() -> None:
    """A source image moves the sum by 2 / n, from right, the critic differing, to wrong; a target one by 1 / m."""
    n, m, delta = 100, 50, 0.05
    squares = n * (2 / n) ** 2 + m * (1 / m) ** 2
    assert math.exp(-2 * estimate.concentration(n, m, delta) ** 2 / squares) == pytest.approx(delta)


def test_the_critic_minimizes_what_it_should() -> None:
    (view,), _ = line(0, 2.0, counts=(60, 40, 50, 40))
    features, other = view.training.features[:, :3], view.target_training.features[:, :3]
    told, untold = view.training.predicted, view.target_training.predicted

    def slow(flat: np.ndarray) -> float:
        weight, bias = flat[:9].reshape(3, 3), flat[9:]
        total = 0.0
        for x, y in zip(features, told, strict=True):
            total -= math.log(softmax(x @ weight + bias)[y]) / 60
        for x, y in zip(other, untold, strict=True):
            z = x @ weight + bias
            total -= math.log(sum(softmax(z)[k] for k in range(3) if k != y)) / 50
        return total + 0.01 * (weight**2).sum()

    kept = []
    original = estimate.minimize

    def watching(cost, start, **options):
        rng = np.random.default_rng(0)
        for _ in range(3):
            somewhere = rng.normal(0, 0.5, len(start))
            assert cost(somewhere)[0] == pytest.approx(slow(somewhere))
            assert cost(somewhere)[1] == pytest.approx(approx_fprime(somewhere, slow, 1e-6), abs=1e-4)
        kept.append(original(cost, start, **options))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "minimize", watching)
        says = estimate.critic(features, told, other, untold, 3, 0.01)
    assert np.abs(approx_fprime(kept[0].x, slow, 1e-6)).max() < 1e-3
    expected = (features @ kept[0].x[:9].reshape(3, 3) + kept[0].x[9:]).argmax(1)
    assert np.array_equal(says(features), expected)


def test_critics_disagree_where_the_lines_differ_and_only_there() -> None:
    def most(shift: float) -> dict[str, float]:
        (view,), _ = line(1, shift)
        found = estimate.disagreements(view, view)
        return {name: on_target / 150 - on_source / 200 for name, (on_source, on_target) in found.items()}

    alike, apart = most(0), most(8)
    assert set(alike) == {"features", "logits", "baseline_features", "baseline_logits"}
    assert all(abs(alike[name]) < 0.1 for name in alike)
    assert apart["features"] > 0.7 and apart["logits"] > 0.15


@pytest.mark.parametrize("shift", [0.0, 1.5, 4.0])
def test_the_bound_holds(shift: float) -> None:
    below, slack = [], []
    for seed in range(20):
        (view,), truth = line(seed, shift, counts=(150, 60, 150, 60), noise=1.3)
        found = judge_blind(view, view).signs["bound"]
        below.append(found <= truth)
        slack.append(truth - found)
    assert np.mean(below) >= 0.95
    if shift == 0:
        assert np.median(slack) < 0.4


def test_the_exact_bound_is_the_tighter_one_at_high_accuracy() -> None:
    (view,), _ = line(3, 0.5, noise=0.5)
    bounds = estimate.lower_bounds(view, view)
    assert all(bounds["exact"][name] > bounds["theorem"][name] for name in bounds["exact"])
    wider = estimate.lower_bounds(view, view, delta=0.001)
    assert all(wider[kind][name] <= bounds[kind][name] for kind in bounds for name in bounds[kind])


def test_a_line_that_is_alike_gets_an_estimate() -> None:
    for seed in range(5):
        views, truth = line(seed, networks=2)
        found = judge_blind(*views)
        assert (found.verdict, found.risk) == ("estimate", None)
        assert found.estimate == pytest.approx(truth, abs=0.08) and found.lower_bound <= truth


@pytest.mark.parametrize(
    ("options", "risk"),
    [
        ({"shift": 8.0}, {"unknown_classes", "lines_apart"}),
        ({"strange": 0.5}, {"unknown_classes"}),
        ({"mix": [0.9, 0.05, 0.05]}, {"class_mix"}),
        ({"counts": (300, 20, 300, 150)}, {"few_images"}),
        ({"counts": (300, 200, 300, 12)}, {"few_images"}),
    ],
)
def test_what_speaks_against_an_estimate_withholds_it(options: dict, risk: set[str]) -> None:
    views, truth = line(2, **options, networks=2)
    found = judge_blind(*views)
    assert found.verdict in ("bound", "refused") and found.estimate is None and found.risk in risk
    assert (found.lower_bound is None) == (found.verdict == "refused")
    assert found.lower_bound is None or estimate.LEAST_BOUND <= found.lower_bound <= truth
    assert found.risk != "unknown_classes" or found.verdict == "refused"  # the bound supposes that there are none


def test_networks_that_contradict_each_other_withhold_the_estimate() -> None:
    views, _ = line(4, networks=2)
    contrary = np.roll(views[1].target.logits, 1, axis=1)
    other = dataclasses.replace(views[1], target=Answers(views[1].target.features, contrary))
    assert judge_blind(views[0], other).risk == "estimates_differ"


def test_the_judgement_is_the_same_again() -> None:
    views, _ = line(5, 1.0, networks=2)
    assert judge_blind(*views) == judge_blind(*views)


def test_the_mix_of_classes_is_recovered() -> None:
    (view,), _ = line(6, mix=[0.7, 0.2, 0.1], counts=(300, 400, 300, 900))
    before = np.bincount(view.truth, minlength=3) / 400
    assert estimate.prior_shift(view) == pytest.approx(np.abs(before - [0.7, 0.2, 0.1]).sum() / 2, abs=0.05)
    alike = line(6, counts=(300, 400, 300, 900))[0][0]
    assert estimate.prior_shift(alike) < 0.06
    # A class that no held-out image has, hardly ever answered: of it nothing is known, and nothing follows.
    four = dataclasses.replace(
        alike,
        source=Answers(alike.source.features, np.pad(alike.source.logits, ((0, 0), (0, 1)), constant_values=-5)),
        target=Answers(alike.target.features, np.pad(alike.target.logits, ((0, 0), (0, 1)), constant_values=-5)),
    )
    assert estimate.prior_shift(four) == pytest.approx(estimate.prior_shift(alike), abs=0.02)


def test_strange_images_are_counted() -> None:
    for part in (0.0, 0.3, 1.0):
        (view,), _ = line(7, strange=part, counts=(300, 300, 300, 600))
        assert estimate.strangeness(view) == pytest.approx(part, abs=0.05)


def test_the_classifier_of_the_lines() -> None:
    assert estimate.domain_auc(line(8)[0][0]) < 0.6
    assert estimate.domain_auc(line(8, 8.0)[0][0]) > 0.95


KINDS = {
    "even": ([1 / 6] * 6, [0.95, 0.9, 0.8, 0.7, 0.6, 0.85]),
    "skewed": ([0.7, 0.1, 0.1, 0.05, 0.05], [0.97, 0.6, 0.5, 0.8, 0.3]),
    "good": ([0.25] * 4, [0.97, 0.95, 0.92, 0.9]),
    "flat": ([0.25] * 4, [0.8] * 4),
    "poor": ([0.25] * 4, [0.6, 0.5, 0.4, 0.3]),
    "one answer": ([1.0], [0.85]),
}


@pytest.mark.parametrize("drawn", ["evenly", "as many of each answer"])
@pytest.mark.parametrize(
    ("count", "images"), [(50, 140), (100, 140), (200, 360), (50, 1000), (100, 1000), (200, 1000)]
)
def test_95_percent_intervals_cover_the_accuracy_of_the_line_as_often(count: int, drawn: str, images: int) -> None:
    """Of the line: the test images of a run are themselves a few that were drawn from it."""
    covered, halves = [], []
    rng = np.random.default_rng(count)
    for shares, accuracies in KINDS.values():
        classes = len(shares)
        truth = np.dot(shares, accuracies)
        for _ in range(400):
            all_answers = rng.choice(classes, images, p=shares)
            answers = rng.choice(all_answers, count, replace=False)
            if drawn != "evenly":
                answers = np.arange(count) % classes
            right = rng.random(count) < np.array(accuracies)[answers]
            _, low, high, _ = interval(right, answers, all_answers)
            covered.append(low <= truth <= high)
            halves.append((high - low) / 2)
    assert 0.93 <= np.mean(covered) <= 0.97
    by_kind = np.reshape(covered, (len(KINDS), -1)).mean(1)
    assert by_kind.min() >= 0.91
    if count == 100:
        assert np.mean(halves) <= 0.08


@pytest.mark.parametrize(
    ("shares", "accuracy", "count"), [((1,), 0.8, 10), ((1,), 0.9, 20), ((1,), 0.98, 100), ((0.97, 0.03), 0.9, 20)]
)
def test_intervals_hold_where_nearly_all_images_get_one_answer(shares: tuple, accuracy: float, count: int) -> None:
    rng, covered = np.random.default_rng(count), []
    for _ in range(1000):
        all_answers = rng.choice(len(shares), 1000, p=shares)
        right = rng.random(count) < accuracy
        _, low, high, _ = interval(right, rng.choice(all_answers, count, replace=False), all_answers)
        covered.append(low <= accuracy <= high)
    assert 0.93 <= np.mean(covered) <= 0.98


def test_unequally_drawn_labels_do_not_bias_the_accuracy() -> None:
    rng = np.random.default_rng(0)
    all_answers = np.repeat([0, 1], [900, 100])
    found = []
    for _ in range(300):
        answers = np.repeat([0, 1], [20, 80])
        found.append(interval(rng.random(100) < np.where(answers == 0, 0.95, 0.4), answers, all_answers)[0])
    assert np.mean(found) == pytest.approx(0.9 * 0.95 + 0.1 * 0.4, abs=0.01)


@pytest.mark.parametrize("answers", [[0], [0, 1, 2], [0, 0, 1], [2, 2, 2, 0]])
@pytest.mark.parametrize("right", [True, False])
def test_intervals_of_a_handful(answers: list[int], right: bool) -> None:
    count = len(answers)
    accuracy, low, high, size = interval(np.full(count, right), np.array(answers), np.array([0, 1, 2, 3, 0, 1]))
    assert accuracy == pytest.approx(float(right))
    assert 0 <= low <= accuracy <= high <= 1 and high - low > 0.3 and size > 0


@pytest.mark.parametrize("count", [24, 100])
@pytest.mark.parametrize("uneven", [1, 5])
def test_how_many_labels_more_is_told_from_few(count: int, uneven: int) -> None:
    rng = np.random.default_rng(0)
    all_answers = rng.integers(0, 6, 400)
    right = rng.random(400) < np.array([0.99, 0.99, 0.95, 0.9, 0.7, 0.6])[all_answers]

    def drawn(n: int, weight: int) -> tuple[float, float, float, float]:
        p = np.where(all_answers < 2, weight, 1)
        rows = rng.choice(400, n, replace=False, p=p / p.sum())
        return interval(right[rows], all_answers[rows], all_answers)

    def half(n: int) -> float:
        return float(np.mean([(high - low) / 2 for _, low, high, _ in (drawn(n, 1) for _ in range(50))]))

    needed = next(n for n in range(100, 400, 5) if half(n) <= 0.05)
    told = [more_labels(found[0], count, found[3], 0.05) for found in (drawn(count, uneven) for _ in range(200))]
    assert 0.6 * needed < count + np.median(told) < 1.5 * needed


@pytest.mark.parametrize("right", [0, 5])
def test_five_labels_alike_do_not_promise_that_a_few_more_are_enough(right: int) -> None:
    answers = np.zeros(5, int)
    accuracy, _, _, size = interval(np.arange(5) < right, answers, np.zeros(200, int))
    assert 5 + more_labels(accuracy, 5, size, 0.05) >= labels_needed(0.9, 0.05)


def test_wilson_and_how_many_labels() -> None:
    exact = binomtest(37, 50).proportion_ci(method="wilson")
    assert wilson(0.74, 50) == pytest.approx((exact.low, exact.high))
    for share, half in ((0.5, 0.05), (0.9, 0.05), (0.97, 0.02), (1.0, 0.1)):
        wanted = next(n for n in range(1, 10_000) if np.ptp(wilson(share, n)) / 2 <= half)
        assert labels_needed(share, half) == wanted


def test_a_run_of_an_earlier_version_is_not_taken_for_one_of_several_tasks(tmp_path: Path) -> None:
    (tmp_path / "inspector").mkdir()
    for heads, key in (([], "no_estimate"), ([{"name": "wide"}], "estimate_one_task")):
        (tmp_path / "inspector" / "inspector.json").write_text(json.dumps({"heads": heads}), encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            estimate_run(tmp_path)
        assert caught.value.key == key
