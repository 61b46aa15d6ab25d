import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sklearn

from steelshift.labels import UNKNOWN
from steelshift.selection.calibration import temperature
from steelshift.selection.metrics import (
    mean_class_accuracy,
    open_set_scores,
    rate,
    scores,
    shares,
    task_scores,
    task_shares,
    told_apart,
)
from steelshift.selection.validators import choose, entropy, information_maximization, proxy_a_distance

NAMES = ("crack", "inclusion", "qualified", "scratch")


def guesses(seed, count=200, absent=()):
    rng = np.random.default_rng(seed)
    truth = rng.choice([label for label in range(4) if label not in absent], count)
    return truth, np.where(rng.random(count) < 0.7, truth, rng.integers(0, 4, count))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("absent", [(), (1,), (0, 3)])
def test_scores_agree_with_scikit_learn(seed, absent):
    truth, predicted = guesses(seed, absent=absent)
    found = scores(truth, predicted, NAMES, None)
    present = np.unique(truth)
    assert found["n"] == 200
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(truth, predicted))
    recall = sklearn.recall_score(truth, predicted, labels=present, average=None)
    assert found["mean_class_accuracy"] == pytest.approx(recall.mean())
    assert found["mean_class_accuracy"] == pytest.approx(mean_class_accuracy(truth, predicted))
    f1 = sklearn.f1_score(truth, predicted, labels=present, average="macro")
    assert found["macro_f1"] == pytest.approx(f1)
    assert found["confusion"] == sklearn.confusion_matrix(truth, predicted, labels=range(4)).tolist()
    for label, name in enumerate(NAMES):
        each = found["per_class"][name]
        assert each["n"] == (truth == label).sum()
        if label in present:
            assert each["recall"] == pytest.approx(recall[present.tolist().index(label)])
        else:
            assert each["recall"] is None
        assert each["precision"] == pytest.approx(
            sklearn.precision_score(truth, predicted, labels=[label], average=None)[0]
        )
    assert "escape_rate" not in found


def test_images_without_a_known_class_do_not_count():
    truth, predicted = guesses(0)
    some = np.concatenate([truth, np.full(50, -1)])
    assert scores(some, np.concatenate([predicted, np.zeros(50, int)]), NAMES, 2) == scores(truth, predicted, NAMES, 2)


def test_open_set_scores_by_hand():
    """Half of the largest entropy of three answers is .549; [2, 0, 0] has .65, [3, 0, 0] .36."""
    truth = np.array([0, 0, 1, UNKNOWN, UNKNOWN, -1])
    spread, first, second = [2.0, 0, 0], [3.0, 0, 0], [0, 9.0, 0]
    found = open_set_scores(truth, np.array([first, spread, second, spread, second, second]))
    assert found["n_unknown"] == 2 and found["known"] == 0.75 and found["unknown"] == 0.5
    assert found["h_score"] == pytest.approx(0.6)
    assert open_set_scores(truth, np.array([spread] * 6))["h_score"] == 0


def test_nothing_to_score_is_no_zero():
    found = scores(np.array([-1, -1]), np.array([0, 1]), NAMES, 2)
    assert found["n"] == 0
    assert found["accuracy"] is found["macro_f1"] is found["mean_class_accuracy"] is None
    assert found["escape_rate"]["rate"] is None and found["overkill_rate"]["rate"] is None
    assert np.sum(found["confusion"]) == 0


def test_a_class_never_called_has_no_precision():
    found = scores(np.array([0, 1, 1]), np.array([0, 0, 0]), NAMES, None)
    assert found["per_class"]["inclusion"] == {"n": 2, "recall": 0.0, "precision": None}
    assert found["per_class"]["crack"]["precision"] == pytest.approx(1 / 3)


def test_escape_and_overkill():
    truth = np.array([2] * 10 + [0] * 5 + [1] * 5)
    predicted = np.array([2] * 7 + [0, 1, 3] + [0, 1, 2, 2, 3] + [1, 1, 0, 0, 2])
    found = scores(truth, predicted, NAMES, 2)
    assert (found["escape_rate"]["rate"], found["escape_rate"]["n"]) == (0.3, 10)
    assert (found["overkill_rate"]["rate"], found["overkill_rate"]["n"]) == (0.3, 10)


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (3, 10), (1, 1), (37, 2000)])
def test_wilson_intervals(count, total):
    p, z = count / total, 1.959964
    centre, half = p + z**2 / (2 * total), z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    found = rate(count, total)
    assert found["low"] == pytest.approx((centre - half) / (1 + z**2 / total), abs=1e-6)
    assert found["high"] == pytest.approx((centre + half) / (1 + z**2 / total), abs=1e-6)
    assert found["low"] <= found["rate"] + 1e-12 and found["rate"] <= found["high"] + 1e-12
    assert found["n"] == total


@pytest.mark.parametrize(
    ("rule", "source", "information", "chosen"),
    [
        ("last", [0.9, 0.5, 0.1], [1, 2, 0], 2),
        ("source_validation", [0.5, 0.9, 0.9], [5, 0, 1], 1),
        ("information_maximization", [0.9, 0.9, 0.9], [0.1, 0.7, 0.7], 1),
        ("information_maximization", [1.0, 0.89, 0.91], [0.1, 9.0, 0.2], 2),
        ("information_maximization", [1.0, 0.9, 0.5], [0.1, 0.3, 9.0], 1),
        ("information_maximization", [0.0, 0.0], [0.1, 0.2], 1),
        ("information_maximization", [0.9, 0.1], [-3.0, 5.0], 0),
        ("information_maximization", [0.9, 0.9], [math.nan, -5.0], 1),
        ("information_maximization", [0.1, 0.9, 0.9], [7.0, math.nan, math.nan], 1),
        ("information_maximization", [None, None, None], [1.0, 7.0, 0.0], 1),
        ("source_validation", [None, None, None], [1.0, 7.0, 0.0], 2),
    ],
)
def test_the_rule_chooses(rule, source, information, chosen):
    scores = {"source_validation": source, "information_maximization": information}
    found = choose(rule, scores, [0.4] * len(source), 0.4)
    assert found == chosen and type(found) is int


@pytest.mark.parametrize(
    ("rule", "source", "score", "largest", "baseline", "chosen"),
    [
        ("snd", [0.9, 0.9], [9.0, 1.0], [0.99, 0.5], 0.5, 1),
        ("snd", [0.9, 0.9], [9.0, 1.0], [0.99, 0.5], 0.99, 0),
        ("snd", [0.9, 0.9], [1.0, 9.0], [1.0, 1.0], 0.5, 1),
        ("snd", [0.9, 0.2, 0.9], [1.0, 9.0, 2.0], [1.0, 0.5, 1.0], 0.5, 1),
        ("snd", [0.95, 0.8, 0.6], [3.0, 1.0, 2.0], [0.99, 0.3, 0.3], 0.3, 1),
        ("source_validation", [0.95, 0.9], [9.0, 1.0], [0.99, 0.5], 0.5, 1),
        ("last", [0.9, 0.9], [9.0, 1.0], [0.5, 1.0], 0.5, 1),
    ],
    ids=[
        "collapsed",
        "baseline too",
        "all collapsed",
        "collapse before floor",
        "floor among the rest",
        "on source",
        "last looks at nothing",
    ],
)
def test_a_collapse_is_not_chosen(rule, source, score, largest, baseline, chosen):
    assert choose(rule, {"source_validation": source, "snd": score}, largest, baseline) == chosen


def test_information_is_largest_for_sure_and_balanced_answers():
    sure = np.eye(4)[np.arange(40) % 4]
    assert information_maximization(sure) == pytest.approx(math.log(4))
    assert information_maximization(np.full((40, 4), 0.25)) == pytest.approx(0)
    assert information_maximization(np.eye(4)[np.zeros(40, int)]) == pytest.approx(0)
    between = softmax(np.random.default_rng(0).normal(0, 2, (200, 4)), axis=1)
    assert 0 < information_maximization(between) < math.log(4)
    assert entropy(np.array([[0.5, 0.5], [1, 0]])).tolist() == pytest.approx([math.log(2), 0])


@pytest.mark.parametrize("known", [0.3, 1.0, 2.5, 6.0])
def test_calibration_recovers_a_known_temperature(known):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    chances = softmax(logits, axis=1)
    truth = (rng.random((20_000, 1)) > chances.cumsum(1)[:, :-1]).sum(1)
    assert temperature(logits * known, truth) == pytest.approx(known, rel=0.05)


def test_calibration_stays_in_its_bounds():
    logits = np.eye(3)[np.arange(30) % 3]
    assert temperature(logits, np.arange(30) % 3) == pytest.approx(0.05, rel=0.05)
    assert temperature(logits, (np.arange(30) + 1) % 3) == pytest.approx(20, rel=0.05)
    assert temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1


def test_sixty_right_answers_do_not_make_every_answer_certain():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 60)
    logits = rng.normal(0, 1, (60, 6))
    logits[np.arange(60), truth] += 9
    right = logits.argmax(1) == truth
    assert right.all()
    heats = (temperature(logits, truth, cautious=each) for each in (False, True))
    bold, careful = (softmax(logits / heat, axis=1).max(1) for heat in heats)
    assert (bold == 1).mean() > 0.5 and careful.mean() == pytest.approx(61 / 62, abs=0.01)
    logits[0] = -logits[0]  # with one wrong answer the cross-entropy has its least, and nothing is to be guessed
    assert temperature(logits, truth) == temperature(logits, truth, cautious=True)



def test_proxy_a_distance_is_0_for_equal_lines_and_2_for_separable_ones():
    rng = np.random.default_rng(0)
    source, alike, apart = rng.normal(0, 1, (300, 8)), rng.normal(0, 1, (300, 8)), rng.normal(0, 1, (200, 8)) + 6
    assert proxy_a_distance(source, alike, 0) < 0.3
    assert proxy_a_distance(source, apart, 0) > 1.95
    between = proxy_a_distance(source, rng.normal(0, 1, (300, 8)) + 0.5, 0)
    assert 0.5 < between < 1.8
    assert proxy_a_distance(source, apart, 3) == proxy_a_distance(source, apart, 3)
    assert proxy_a_distance(source[:3], apart, 0) == 0


def test_proxy_a_distance_survives_constant_features():
    assert proxy_a_distance(np.ones((20, 3)), np.ones((20, 3)), 0) == 0
    assert proxy_a_distance(np.ones((20, 3)), np.zeros((20, 3)), 0) == 2


def test_a_task_of_which_one_class_is_tested_tells_nothing_apart():
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    found = task_scores("yes/no", np.array([0, 0, -1]), logits, ("no", "yes"), 0)
    assert found["mean_class_accuracy"] is None and found["macro_f1"] is None
    assert found["accuracy"] == 1 and found["n"] == 2 and found["per_class"]["no"]["recall"] == 1
    both = task_scores("yes/no", np.array([0, 0, 1]), logits, ("no", "yes"), 0)
    assert both["mean_class_accuracy"] == 1


def test_a_class_that_all_images_have_or_none_is_not_in_a_multi_label_mean():
    """Saying no to what is never there would count as a class told perfectly."""
    truth = np.array([[1, 0, 1], [1, 0, 0], [1, 0, -1], [1, 0, 1]])
    logits = np.array([[1.0, -1, 1], [-1, -1, 1], [1, -1, 1], [1, -1, -1]])
    found = task_scores("multi-label", truth, logits, ("always", "never", "some"), None)
    assert found["mean_class_accuracy"] == pytest.approx((1 / 2 + 0) / 2)  # of `some` alone
    assert found["per_class"]["always"]["recall"] == 3 / 4 and found["per_class"]["never"]["recall"] is None
    nothing = task_scores("multi-label", truth[:, :2], logits[:, :2], ("always", "never"), None)
    assert nothing["mean_class_accuracy"] is None and nothing["accuracy"] == 7 / 8


@pytest.mark.parametrize("absent", [(), (1,), (0, 3)])
def test_what_images_add_sums_to_the_mean(absent):
    truth, predicted = guesses(5, absent=absent)
    truth[::7] = -1
    parts, known = shares(truth, predicted), truth >= 0
    score = mean_class_accuracy(truth[known], predicted[known])
    assert parts.each.sum() == pytest.approx(score)
    assert not parts.each[truth != predicted].any()
    row = np.flatnonzero(truth != predicted)[0]  # one image more that is right adds its class's step
    if known[row]:
        better = predicted.copy()
        better[row] = truth[row]
        gain = mean_class_accuracy(truth[known], better[known]) - score
        assert gain == pytest.approx(parts.steps[np.unique(truth[known]).tolist().index(truth[row])])


@pytest.mark.parametrize("kind", ["single-label", "multi-label", "ordinal"])
def test_what_images_add_to_a_task_sums_to_its_score(kind):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(150, 4))
    truth = (rng.random((150, 4)) < 0.3).astype(int) if kind == "multi-label" else rng.integers(0, 4, 150)
    truth[::9] = -1
    score = task_scores(kind, truth, logits, NAMES, None)["mean_class_accuracy"]
    assert task_shares(kind, truth, logits).each.sum() == pytest.approx(score)
    assert len(task_shares(kind, truth, logits).steps) == (8 if kind == "multi-label" else 4)
    told_nothing = np.where(truth < 0, truth, 1)
    assert task_scores(kind, told_nothing, logits, NAMES, None)["mean_class_accuracy"] is None
    assert task_shares(kind, told_nothing, logits) is None


def change_of(fell, rose, count=400, classes=4):
    """Shares before and after, of so many images as fell and rose, evenly over the classes."""
    truth = np.arange(count) % classes
    before = np.where(np.arange(count) < rose, -1, truth)
    after = np.where((np.arange(count) >= rose) & (np.arange(count) < rose + fell), -1, truth)
    return shares(truth, before), shares(truth, after)


@pytest.mark.parametrize(
    "fell, rose, told", [(0, 5, False), (0, 12, True), (10, 18, False), (10, 30, True), (60, 70, False), (60, 96, True)]
)
def test_a_change_is_told_where_the_sign_test_tells_it_too(fell, rose, told):
    """One image a class is taken to have changed beside: so the sign test over all of them is the reference."""
    before, after = change_of(fell, rose)
    together = [np.repeat([-1, 1], [fell + 4 - up, rose + up]) for up in range(5)]
    flips = np.random.default_rng(1).choice([-1, 1], (20_000, fell + rose + 4)).sum(1)
    reference = (np.abs(flips) >= abs(rose - fell)).mean()
    assert len(together[0]) == fell + rose + 4 and abs(reference - 0.05) > 0.01 and (reference < 0.05) == told
    each = np.arange(400)
    assert told_apart(before, after, each) == told_apart(after, before, each) == told


def chance(counts, up, down, draws=400):
    """How often a change is told, up or down: images of each class rise with `up` and fall with `down`."""
    rng, told = np.random.default_rng(0), []
    truth = np.repeat(np.arange(len(counts)), counts)
    for _ in range(draws):
        draw = rng.random(len(truth))
        before = np.where(draw < np.array(up)[truth], -1, truth)
        after = np.where(draw > 1 - np.array(down)[truth], -1, truth)
        told.append(told_apart(shares(truth, before), shares(truth, after), np.arange(len(truth))))
    return np.mean(told)


def test_chance_is_called_a_difference_in_one_case_of_twenty_at_most():
    assert chance([30] * 4, [0.1] * 4, [0.1] * 4) <= 0.05
    assert chance([100] * 5, [0.05] * 5, [0.05] * 5) <= 0.06
    assert chance([100] * 5, [0.1] * 5, [0.02] * 5) > 0.9


@pytest.mark.parametrize("rare, falls", [(3, 0.20), (5, 0.30), (2, 0.24)])
def test_a_rare_class_of_which_nothing_was_seen_to_change_is_not_taken_for_known(rare, falls):
    """The common classes gain what the rare one loses: the true change is nothing."""
    up, down = [0.06] * 4 + [0.04], [0.06 - (falls - 0.04) / 4] * 4 + [falls]
    assert chance([100] * 4 + [rare], up, down) <= 0.05


def test_images_of_one_strip_count_as_one():
    before, after = change_of(0, 12)
    assert told_apart(before, after, np.arange(400))
    assert not told_apart(before, after, np.arange(400) // 4)
