"""How right an inspector is on the target line without labels of it: estimates, a lower bound, a verdict, and an
interval from a few labels. Functions of arrays; accuracies are plain, 0 to 1.

No function of answers alone can be right on every new line, so three things are given: an estimate that is good where
the lines differ little, a bound that asks for less, and a verdict that says which of the two to look at, if either.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import logsumexp, softmax
from scipy.stats import beta, norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steelshift.selection.answers import Answers
from steelshift.selection.calibration import temperature
from steelshift.selection.validators import entropy

DELTA = 0.05
"""Chance at which the bound may fail for want of images."""
DECAYS = (1e-1, 1e-2, 1e-3)
"""Weight decays of the critics."""

ESTIMATING = ("atc", "cot", "cott")
"""Whose median is the estimate; the others are witnesses, and spread with them."""
MOST_TRANSPORTED = 1000
"""Images that are transported at once: the cost grows with the cube of their number."""

# Set on development pairs by scripts/calibrate_estimate.py (docs/results/estimate.md), never on those reported.
MOST_APART = 0.9
"""Area under the ROC curve of a classifier of the lines, above which estimates are not trusted."""
MOST_PRIOR_SHIFT = 0.3
"""Total variation between the mix of classes on the source and that estimated on the target."""
MOST_SPREAD = 0.25
"""Between the largest and the smallest of all point estimates."""
MOST_STRANGE = 0.3
"""Part of the target images farther from the source's than nearly all held-out source images."""
LEAST_BOUND = 0.5
"""A bound below helps nobody."""
LEAST_IMAGES = 30
"""Held-out images of either line, below which nothing is said."""
KIND = "exact"
"""Of concentration in the bound that is given; see `lower_bounds`."""
CRITICS = ("features", "logits", "baseline_features", "baseline_logits")
"""What the critics read whose least bound is given."""

Verdict = Literal["estimate", "bound", "refused"]
Risk = Literal["few_images", "unknown_classes", "lines_apart", "class_mix", "estimates_differ"]


@dataclass(frozen=True)
class View:
    """Answers of one network to images of both lines, and labels of the source."""

    training: Answers
    """On source training images."""
    source: Answers
    """On source images that trained nothing."""
    truth: np.ndarray
    """Classes of those (n,)."""
    target_training: Answers
    """On unlabelled target images that the method was trained with."""
    target: Answers
    """On target test images: what is asked about."""


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    estimate: float | None
    """None unless the verdict is estimate."""
    lower_bound: float | None
    """None where the verdict is refused."""
    risk: Risk | None
    """What speaks against an estimate: of several the first, in the order of `Risk`."""
    signs: dict[str, float]
    """All that was measured, by name: single estimates, bounds and risks."""


def judge_blind(inspector: View, baseline: View) -> Judgement:
    """Estimate, bound and verdict on the inspector; the baseline is the same network trained on the source alone."""
    if min(len(inspector.truth), len(inspector.target.logits)) < LEAST_IMAGES:
        return Judgement("refused", None, None, "few_images", {})
    estimates = point_estimates(inspector, baseline)
    estimate = float(np.median([estimates[name] for name in ESTIMATING]))
    bounds = lower_bounds(inspector, baseline)
    bound = min(bounds[KIND][critics] for critics in CRITICS)
    risks: dict[Risk, tuple[float, float]] = {
        "unknown_classes": (strangeness(inspector), MOST_STRANGE),
        "lines_apart": (domain_auc(inspector), MOST_APART),
        "class_mix": (prior_shift(inspector), MOST_PRIOR_SHIFT),
        "estimates_differ": (max(estimates.values()) - min(estimates.values()), MOST_SPREAD),
    }
    signs = {f"{kind}_{critics}": value for kind, found in bounds.items() for critics, value in found.items()}
    signs |= estimates | {name: value for name, (value, _) in risks.items()} | {"estimate": estimate, "bound": bound}
    risk = next((name for name, (value, most) in risks.items() if value > most), None)
    if risk is None:
        return Judgement("estimate", estimate, bound, None, signs)
    if bound >= LEAST_BOUND and risk != "unknown_classes":
        return Judgement("bound", None, bound, risk, signs)
    return Judgement("refused", None, None, risk, signs)


# Estimates


def point_estimates(inspector: View, baseline: View) -> dict[str, float]:
    """Five by name, each calibrated on held-out source images; without agreement where both networks are one."""
    source, target, truth = inspector.source.logits, inspector.target.logits, inspector.truth
    heat = temperature(source.astype(np.float64), truth)
    p_source, p_target = softmax(source / heat, axis=1), softmax(target / heat, axis=1)
    right = source.argmax(1) == truth
    mix = np.bincount(truth, minlength=target.shape[1]) / len(truth)
    moved_source, moved_target = transport_costs(p_source, mix), transport_costs(p_target, mix)
    found = {
        "atc": average_thresholded_confidence(-entropy(p_source), right, -entropy(p_target)),
        "cot": float(1 - moved_target.mean()),
        "cott": average_thresholded_confidence(-moved_source, right, -moved_target),
        "doc": difference_of_confidences(p_source.max(1), right, p_target.max(1)),
    }
    if not np.array_equal(target, baseline.target.logits):
        same_source = inspector.source.predicted == baseline.source.predicted
        same_target = inspector.target.predicted == baseline.target.predicted
        found["agreement"] = difference_of_confidences(same_source, right, same_target)
    return found


def transport_costs(probabilities: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """COT: what it costs each image to be given a class, where all together take classes in the parts of `mix`.

    probabilities (n, K); mix (K,), sums to 1. A class costs 1 less its probability, and the sum is least. Its mean is
    an estimate of the error (COT); as a confidence turned round, it makes ATC's threshold sharper (COTT). Lu et al.,
    Characterizing Out-of-Distribution Error via Optimal Transport, NeurIPS 2023. Beyond MOST_TRANSPORTED images, in
    turns of no more than that.
    """
    turns = np.arange(len(probabilities)) % -(-len(probabilities) // MOST_TRANSPORTED)
    costs = np.empty(len(probabilities))
    for turn in np.unique(turns):
        rows = np.flatnonzero(turns == turn)
        exact = mix * len(rows)
        counts = np.floor(exact).astype(int)
        rest = len(rows) - counts.sum()
        counts[np.argsort(counts - exact, kind="stable")[:rest]] += 1  # largest remainders first
        cost = 1 - probabilities[rows][:, np.repeat(np.arange(len(mix)), counts)]
        costs[rows] = cost[linear_sum_assignment(cost)]
    return costs


def average_thresholded_confidence(source: np.ndarray, right: np.ndarray, target: np.ndarray) -> float:
    """ATC: the part of the target whose confidence reaches a threshold that as many source images reach as are right.

    source, target: confidences (n,), (m,), of any scale. Garg et al., Leveraging Unlabeled Data to Predict Out-of-
    Distribution Performance, ICLR 2022; with negative entropy as confidence, their better one.
    """
    wrong = int((~right).sum())
    threshold = np.sort(source)[wrong] if wrong < len(source) else np.inf
    return float((target >= threshold).mean())


def difference_of_confidences(source: np.ndarray, right: np.ndarray, target: np.ndarray) -> float:
    """DoC: source accuracy, less as much as mean confidence falls from source to target, within 0 to 1.

    Guillory et al., Predicting with Confidence on Unseen Distributions, ICCV 2021. Confidence may be agreement of two
    networks, 0 or 1.
    """
    return float(np.clip(right.mean() - (source.mean() - target.mean()), 0, 1))


# The bound


def lower_bounds(inspector: View, baseline: View, delta: float = DELTA) -> dict[str, dict[str, float]]:
    """DIS2: source accuracy less the disagreement that a critic can bring about on the target and not on the source.

    For any critic h', error on the target <= error on the source + (disagreement of h and h' on the target - that on
    the source), if the true labels disagree with h by no more than that, and if there are no unknown classes; with
    probability 1 - delta over images. Rosenfeld and Garg, (Almost) Provable Error Bounds Under Distribution Shift via
    Disagreement Discrepancy, NeurIPS 2023. Critics are linear, learnt on training images of both lines and measured on
    the others; where bounds by several critics are given, the least holds if the condition does for any one of them.

    By what the critic reads: a method that hides the line in the inspector's features keeps critics on them from
    disagreeing, and the condition is in doubt; it did nothing to the baseline's. Critics on logits can do less and the
    bound is tighter; critics on features can do more, and the condition is safer. For each: `theorem`, with the paper's
    concentration term; `exact`, with binomial intervals of Clopper and Pearson, a third of delta each, for each of
    the three parts instead: as good a guarantee, tighter where errors and disagreements are few, a little looser where
    they are many.
    """
    wrong = int((inspector.source.predicted != inspector.truth).sum())
    n, m = len(inspector.truth), len(inspector.target.logits)
    found: dict[str, dict[str, float]] = {"exact": {}, "theorem": {}}
    for name, (source, target) in disagreements(inspector, baseline).items():
        theorem = 1 - (wrong / n + target / m - source / n) - concentration(n, m, delta)
        exact = 1 - at_most(wrong, n, delta / 3) - at_most(target, m, delta / 3) + at_least(source, n, delta / 3)
        found["theorem"][name] = float(np.clip(theorem, 0, 1))
        found["exact"][name] = float(np.clip(exact, 0, 1))
    return found


def concentration(n: int, m: int, delta: float) -> float:
    """DIS2's term for n source and m target images, by Hoeffding's inequality."""
    return float(np.sqrt((n + 4 * m) * np.log(1 / delta) / (2 * n * m)))


def at_most(count: int, total: int, delta: float) -> float:
    """Upper end of a one-sided binomial interval (Clopper and Pearson)."""
    return 1.0 if count == total else float(beta.ppf(1 - delta, count + 1, total - count))


def at_least(count: int, total: int, delta: float) -> float:
    """Lower end of a one-sided binomial interval."""
    return 0.0 if count == 0 else float(beta.ppf(delta, count, total - count + 1))


def disagreements(inspector: View, baseline: View) -> dict[str, tuple[int, int]]:
    """On how many held-out source and target images a critic disagrees with the inspector.

    By what it reads: the features or the logits of the inspector or of the baseline. Of DECAYS that one is taken that
    goes farthest on the training images; the inspector itself, which never disagrees, where none goes anywhere.
    """
    told, untold = inspector.training.predicted, inspector.target_training.predicted
    classes = inspector.target.logits.shape[1]
    found = {}
    for view, whose in ((inspector, ""), (baseline, "baseline_")):
        for part in ("features", "logits"):
            inputs = [getattr(a, part) for a in (view.training, view.target_training, view.source, view.target)]
            scale = StandardScaler().fit(np.concatenate(inputs[:2]).astype(np.float64))
            train, target_train, source, target = (scale.transform(each.astype(np.float64)) for each in inputs)
            farthest, found[whose + part] = 0.0, (0, 0)
            for decay in DECAYS:
                says = critic(train, told, target_train, untold, classes, decay)
                gone = float((says(target_train) != untold).mean() - (says(train) != told).mean())
                if gone > farthest:
                    on_source = int((says(source) != inspector.source.predicted).sum())
                    on_target = int((says(target) != inspector.target.predicted).sum())
                    farthest, found[whose + part] = gone, (on_source, on_target)
    return found


def critic(
    source: np.ndarray, of_source: np.ndarray, target: np.ndarray, of_target: np.ndarray, classes: int, decay: float
) -> Callable[[np.ndarray], np.ndarray]:
    """A linear classifier that says as it is told on source features (n, F), and anything else on the target's (m, F).

    Cross-entropy on the source and -log(1 - softmax_y) on the target, with weight decay, from zero on: nothing random.
    That loss of disagreement is consistent for more than two classes, where DIS2's own is not (Marchant et al., On the
    Bayes Inconsistency of Disagreement Discrepancy Surrogates, arXiv 2512.05931). Returns a function of features that
    gives classes.
    """
    told, denied = np.eye(classes)[of_source], np.eye(classes, dtype=bool)[of_target]
    n, m = len(source), len(target)

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[:-classes].reshape(-1, classes), flat[-classes:]
        z, other = source @ weight + bias, target @ weight + bias
        without = np.where(denied, -np.inf, other)
        agreeing = logsumexp(z, axis=1) - (z * told).sum(1)
        disagreeing = logsumexp(other, axis=1) - logsumexp(without, axis=1)
        slope = (softmax(z, axis=1) - told) / n
        slope_other = (softmax(other, axis=1) - softmax(without, axis=1)) / m
        gradient = source.T @ slope + target.T @ slope_other + 2 * decay * weight
        flat_gradient = np.concatenate([gradient.ravel(), slope.sum(0) + slope_other.sum(0)])
        return float(agreeing.mean() + disagreeing.mean() + decay * (weight**2).sum()), flat_gradient

    start = np.zeros((source.shape[1] + 1) * classes)
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return lambda features: (features @ found[:-classes].reshape(-1, classes) + found[-classes:]).argmax(1)


# Risks


def domain_auc(view: View) -> float:
    """Area under the ROC curve of a linear classifier of the lines on features, held out; .5 alike, 1 apart."""
    lines = [view.training.features, view.target_training.features]
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    probe.fit(np.concatenate(lines).astype(np.float64), np.repeat([0, 1], [len(line) for line in lines]))
    held_out = [view.source.features, view.target.features]
    said = probe.decision_function(np.concatenate(held_out).astype(np.float64))
    area = roc_auc_score(np.repeat([0, 1], [len(line) for line in held_out]), said)
    return float(max(area, 1 - area))


def prior_shift(view: View) -> float:
    """Total variation, 0 to 1, between the source's mix of classes and the target's by expectation maximization.

    Saerens et al., Adjusting the Outputs of a Classifier to New A Priori Probabilities, 2002; on calibrated
    probabilities, in which a source prior as in held-out images is assumed.
    """
    heat = temperature(view.source.logits.astype(np.float64), view.truth)
    counts = np.bincount(view.truth, minlength=view.target.logits.shape[1])
    p = softmax(
        view.target.logits[:, counts > 0].astype(np.float64) / heat, axis=1
    )  # of no other class is a prior known
    before = after = counts[counts > 0] / counts.sum()
    for _ in range(100):
        weighted = p * (after / before)
        after = (weighted / weighted.sum(1, keepdims=True)).mean(0)
    return float(np.abs(after - before).sum() / 2)


def strangeness(view: View) -> float:
    """Part of the target test images whose fifth nearest source training image is farther than for 99 % of the source.

    In features scaled to the source's spread. A defect that the source line has not stands apart from all it has.
    """
    scale = StandardScaler().fit(view.training.features.astype(np.float64))
    known, held_out, asked = (
        scale.transform(part.features.astype(np.float64)) for part in (view.training, view.source, view.target)
    )
    near = NearestNeighbors(n_neighbors=min(5, len(known))).fit(known)
    usual = np.quantile(near.kneighbors(held_out)[0][:, -1], 0.99)
    return float((near.kneighbors(asked)[0][:, -1] > usual).mean())


# A few labels


def interval(right: np.ndarray, answers: np.ndarray, all_answers: np.ndarray) -> tuple[float, float, float, float]:
    """Accuracy on the line from a few labelled test images, and its 95 % interval: (accuracy, low, high, size).

    right: bool (n,), whether the inspector is right on each labelled image; answers: its answers to them (n,);
    all_answers: to all test images (m,). Labelled images may be drawn evenly, or more of some answers than of others,
    but at random among those of one answer: each answer counts by its part of all images (answers with fewer than two
    labelled images are put together), and what those parts are on the line is itself known from m images alone.
    Wilson's interval at the effective number of labels, `size`: as many drawn evenly would say as much (Korn and
    Graubard, Confidence Intervals for Proportions from Complex Surveys, 1998).
    """
    counts = np.bincount(answers, minlength=all_answers.max() + 1)
    few = np.flatnonzero(counts < 2)
    strata = [np.array([answer]) for answer in np.flatnonzero(counts >= 2)]
    if counts[few].sum() or not strata:
        strata.append(few)
    elif len(few):
        largest = int(np.argmax([counts[group].sum() for group in strata]))
        strata[largest] = np.concatenate([strata[largest], few])
    parts, means, smooth, variance = [], [], [], 0.0
    for group in strata:
        of_group = right[np.isin(answers, group)]
        part, n = float(np.isin(all_answers, group).mean()), len(of_group)
        parts.append(part)
        means.append(of_group.mean())
        # Half an image of each kind more (Jeffreys), or a stratum where all are right would be certain.
        smooth.append((of_group.sum() + 0.5) / (n + 1))
        variance += part**2 * smooth[-1] * (1 - smooth[-1]) / max(n - 1, 1)
    accuracy = np.dot(parts, means)
    variance += np.dot(parts, np.square(means - accuracy)) / len(all_answers)
    together = np.dot(parts, smooth)  # of one stratum, `size` is then what Wilson's interval wants
    size = together * (1 - together) / variance
    low, high = wilson(accuracy, size)
    return float(accuracy), low, high, float(size)


def wilson(share: float, total: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share; total need not be whole."""
    z = norm.ppf(0.5 + level / 2)
    centre, half = share + z**2 / (2 * total), z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    low, high = (centre - half) / (1 + z**2 / total), (centre + half) / (1 + z**2 / total)
    return float(np.clip(low, 0, share)), float(np.clip(high, share, 1))  # rounding may leave them by a hair


def labels_needed(share: float, half: float) -> int:
    """Least number of labels drawn evenly whose 95 % interval is at most twice `half` (0 to .5) wide."""
    low, high = 1, 1 << 30
    while low < high:
        middle = (low + high) // 2
        least, most = wilson(share, middle)
        low, high = (low, middle) if (most - least) / 2 <= half else (middle + 1, high)
    return low


def more_labels(share: float, count: int, size: float, half: float) -> int:
    """How many labels drawn evenly are wanted beside the `count` at hand, which say as much as `size` drawn evenly.

    Where strata make them say more, they will make those to come say more too. Planned with one label more that
    is right and one that is wrong (Laplace): five of five are not taken for a line without a fault.
    """
    planned = (share * count + 1) / (count + 2)
    return max(0, math.ceil((labels_needed(planned, half) - size) * min(1.0, count / size)))
