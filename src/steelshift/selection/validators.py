"""Judges that see no target label: each takes arrays and gives a score, higher being better.

information maximization: H(mean p) - mean H(p) of the target probabilities (Musgrave et al., arXiv 2208.07360).
"""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

SOURCE_FLOOR = 0.9
"""A checkpoint whose source validation accuracy is below this share of the best cannot be chosen."""


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Shannon entropy in nats along the last axis."""
    return -(probabilities * np.log(np.clip(probabilities, 1e-12, None))).sum(-1)


def information_maximization(target: np.ndarray) -> float:
    """H(mean p) - mean H(p), probabilities (n, K): decided on each image, and on different classes over all."""
    return float(entropy(target.mean(0)) - entropy(target).mean())


def choose(rule: str, source_validation: Sequence[float], information: Sequence[float]) -> int:
    """Index of the candidate that a rule chooses; the earliest of equals.

    last: the last. source_validation: the best on held-out source images. information_maximization: the best on
    unlabelled target images among those that keep SOURCE_FLOOR of the best source accuracy.
    """
    if rule == "last":
        return len(source_validation) - 1
    on_source = np.asarray(source_validation)
    if rule == "source_validation":
        return int(on_source.argmax())
    allowed = on_source >= SOURCE_FLOOR * on_source.max()
    return int(np.where(allowed, information, -np.inf).argmax())


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
