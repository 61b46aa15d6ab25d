"""Judges that see no target label: each takes arrays and gives a score, higher being better.

Probabilities are (n, K), features (n, F), class indices (n,). Formulas that go by several names are those of Musgrave
et al., Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation (arXiv 2208.07360).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steelshift.selection.answers import Answers
from steelshift.selection.metrics import mean_class_accuracy

SOURCE_FLOOR = 0.9
"""A checkpoint whose source validation accuracy is below this share of the best cannot be chosen."""
COLLAPSED = 0.98
"""A checkpoint that gives one answer to this share of the target images, where the baseline does not, neither."""
MIXING = 0.55
"""MixVal's share of the first image, just enough that it, and not the second, gives a mixture its class."""
NEEDS_SOURCE_TRAINING = frozenset({"dev", "devn"})
NEEDS_MIXTURES = frozenset({"mixval"})


@dataclass(frozen=True)
class Seen:
    """All that a judge may see of one checkpoint: its answers on both lines, and labels of the source line alone."""

    validation: Answers
    """On held-out source images."""
    truth: np.ndarray
    """Classes of those (n,)."""
    target: Answers
    """On unlabelled target training images."""
    source_training: np.ndarray | None = None
    """Features (n, F) of source training images; for NEEDS_SOURCE_TRAINING."""
    mixed: np.ndarray | None = None
    """Logits (n, K) on MIXING of each target image and the rest of its partner; for NEEDS_MIXTURES."""
    partner: np.ndarray | None = None
    """Index of each target image's partner (n,)."""


def score(rule: str, seen: Seen) -> float:
    """The score of one checkpoint by one judge, by its name in `Select`."""
    target = seen.target
    match rule:
        case "source_validation":
            return mean_class_accuracy(seen.truth, seen.validation.predicted)
        case "entropy":
            return negative_entropy(target.probabilities)
        case "information_maximization":
            return information_maximization(target.probabilities)
        case "bnm":
            return nuclear_norm(target.probabilities)
        case "snd":
            return neighbourhood_density(target.probabilities)
        case "dev" | "devn":
            weights = density_ratio(seen.source_training, target.features, seen.validation.features)
            if rule == "dev":
                right = (np.arange(len(seen.truth)), seen.truth)
                return dev(weights, -log_softmax(seen.validation.logits.astype(np.float64), axis=1)[right])
            return devn(weights, seen.validation.predicted != seen.truth)
        case "class_ami":
            return class_ami(target.features, target.predicted, target.logits.shape[1])
        case "mixval":
            return mixval(seen.mixed, target.predicted, target.predicted[seen.partner], MIXING)
        case "circular":
            return circular(target.features, target.predicted, seen.validation.features, seen.truth)
    raise ValueError(rule)


def choose(
    rule: str, scores: Mapping[str, Sequence[float]], largest_share: Sequence[float], baseline_share: float
) -> int:
    """Index of the checkpoint that a rule chooses; the earliest of equals.

    scores: by rule, a value a checkpoint, `source_validation` always among them. `last` is the last and looks at
    nothing. Every other rule takes the best among checkpoints that have not COLLAPSED (largest_share, baseline_share:
    part of the target images that gets the most frequent answer from each checkpoint, and from the baseline), and that
    keep SOURCE_FLOOR of the best source accuracy among those. Where the baseline or every checkpoint has collapsed, a
    collapse is no reason; where source accuracy is not known (None), it is none, and no rule.
    """
    on_source = np.asarray(scores["source_validation"], dtype=np.float64)
    unknown = np.isnan(on_source).all()
    if rule == "last" or (rule == "source_validation" and unknown):
        return len(on_source) - 1
    spread = np.asarray(largest_share) < COLLAPSED
    if baseline_share >= COLLAPSED or not spread.any():
        spread[:] = True
    allowed = spread if unknown else spread & (on_source >= SOURCE_FLOOR * on_source[spread].max())
    values = np.nan_to_num(np.asarray(scores[rule], dtype=np.float64), nan=-1e300)
    return int(np.where(allowed, values, -np.inf).argmax())


def most_frequent_share(predicted: np.ndarray) -> float:
    """The part of the images (n,) that get the most frequent answer."""
    return float(np.bincount(predicted).max() / len(predicted))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Shannon entropy in nats along the last axis."""
    return -(probabilities * np.log(np.clip(probabilities, 1e-12, None))).sum(-1)


def negative_entropy(target: np.ndarray) -> float:
    """-mean H(p), -log K to 0: how decided the single answers are. A collapse to one class is its maximum."""
    return -float(entropy(target).mean())


def information_maximization(target: np.ndarray) -> float:
    """H(mean p) - mean H(p), 0 to log K: decided on each image, and on different classes over all."""
    return float(entropy(target.mean(0)) - entropy(target).mean())


def nuclear_norm(target: np.ndarray) -> float:
    """BNM: the sum of the singular values of P, divided by n; larger for decided and for many different answers.

    Cui et al., CVPR 2020, as a judge. Of the target alone: Musgrave's second form adds the source, whose accuracy the
    floor of `choose` looks after already.
    """
    return float(np.linalg.svd(target, compute_uv=False).sum() / len(target))


def neighbourhood_density(target: np.ndarray, temperature: float = 0.05) -> float:
    """SND: mean entropy of each image's soft neighbourhood among the others, softmax(cos(p_i, p_j) / temperature).

    0 to log(n - 1), larger where answers form dense clusters; one image alone has none, 0. Saito et al., Tune it the
    Right Way, ICCV 2021. A collapse to one class is its maximum.
    """
    if len(target) < 2:
        return 0.0
    unit = target / np.linalg.norm(target, axis=1, keepdims=True)
    alike = unit @ unit.T / temperature
    np.fill_diagonal(alike, -np.inf)
    return float(entropy(softmax(alike, axis=1)).mean())


def density_ratio(source: np.ndarray, target: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Density of the target over that of the source, (m,) above 0, at features (m, F).

    From a linear classifier of the lines, p(target) / p(source) times n_source / n_target, as in DEV; strongly
    regularized, for with as many features as images a free one tells the very images apart.
    """
    domain = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    domain.fit(np.concatenate([source, target]).astype(np.float64), np.repeat([0, 1], [len(source), len(target)]))
    chances = np.clip(domain.predict_proba(at.astype(np.float64)), 1e-6, None)
    return chances[:, 1] / chances[:, 0] * (len(source) / len(target))


def dev(weights: np.ndarray, losses: np.ndarray) -> float:
    """DEV: minus the target risk that weighted source losses promise, with a control variate.

    -(mean(W l) + eta mean(W) - eta), eta = -Cov(W l, W) / Var(W); where all weights are equal, -mean(W l).
    weights, losses: (n,) of held-out source images. You et al., Towards Accurate Model Selection in Deep Unsupervised
    Domain Adaptation, ICML 2019.
    """
    weighted = weights * losses
    if len(weights) < 2 or np.ptp(weights) <= 1e-9 * np.abs(weights).max():
        return -float(weighted.mean())
    covariance = np.cov(weighted, weights)
    eta = -covariance[0, 1] / covariance[1, 1]
    return -float(weighted.mean() + eta * weights.mean() - eta)


def devn(weights: np.ndarray, wrong: np.ndarray) -> float:
    """DEVN: DEV of 0/1 losses, with weights divided by the largest and then shifted to a mean of 1.

    No single weight can outweigh all others, and at a mean of 1 the control variate vanishes.
    """
    scaled = weights / weights.max()
    return dev(scaled - scaled.mean() + 1, wrong.astype(np.float64))


def class_ami(features: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """ClassAMI: adjusted mutual information of answers and k-means clusters of features, at most 1; chance is 0."""
    groups = min(classes, len(np.unique(features, axis=0)))
    if groups < 2 or len(np.unique(predicted)) < 2:
        return 0.0  # two constants agree, and say nothing
    clusters = KMeans(groups, n_init=3, random_state=0).fit_predict(features.astype(np.float64))
    return float(adjusted_mutual_info_score(predicted, clusters))


def mixval(mixed: np.ndarray, first: np.ndarray, second: np.ndarray, share: float) -> float:
    """MixVal: how often a mixture of two target images gets the answer of the one it has more of, 0 to 1.

    mixed: logits (n, K) on share * image + (1 - share) * partner; first, second: answers to both (n,). The mean of two
    parts: pairs of one answer (within clusters) and of two (between). Without pairs of two answers that part is 0, so
    that a collapse is not rewarded; without pairs of one it is left out. Hu et al., Mixed Samples as Probes, NeurIPS
    2023, who average the ranks of the parts over all checkpoints instead.
    """
    right = mixed.argmax(1) == (first if share >= 0.5 else second)
    same = first == second
    between = right[~same].mean() if not same.all() else 0.0
    return float((right[same].mean() + between) / 2) if same.any() else float(between)


def circular(target: np.ndarray, predicted: np.ndarray, source: np.ndarray, truth: np.ndarray) -> float:
    """Mean class accuracy on the source of a linear classifier taught the answers on the target; on features, 0 to 1.

    Reverse validation: Zhong et al., Cross Validation Framework to Choose amongst Models, ECML 2010; Ganin et al., JMLR
    2016. A checkpoint with a single answer teaches that answer.
    """
    if len(np.unique(predicted)) < 2:
        return mean_class_accuracy(truth, np.full(len(truth), predicted[0]))
    back = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    back.fit(target.astype(np.float64), predicted)
    return mean_class_accuracy(truth, back.predict(source.astype(np.float64)))


def proxy_a_distance(source: np.ndarray, target: np.ndarray, seed: int) -> float:
    """2 (1 - 2 error) of a fresh linear classifier of the lines on features (n, F), held out; 0 (alike) to 2.

    Ben-David et al., Analysis of Representations for Domain Adaptation, NeurIPS 2006.
    """
    rng = np.random.default_rng(seed)
    count = min(len(source), len(target))
    if count < 4:
        return 0.0
    halves = []
    for features in (source, target):
        order = rng.permutation(len(features))[:count]
        halves.append((features[order[: count // 2]], features[order[count // 2 :]]))
    (source_train, source_test), (target_train, target_test) = halves
    scale = StandardScaler().fit(np.concatenate([source_train, target_train]))
    probe = LogisticRegression(C=0.01, max_iter=500)
    truth = np.repeat([0, 1], [len(source_train), len(target_train)])
    probe.fit(scale.transform(np.concatenate([source_train, target_train])), truth)
    wrong_source = (probe.predict(scale.transform(source_test)) != 0).mean()
    wrong_target = (probe.predict(scale.transform(target_test)) != 1).mean()
    return float(max(0.0, 2 * (1 - (wrong_source + wrong_target))))
