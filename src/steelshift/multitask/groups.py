"""Which tasks share a network: by nature, by how related they are, or at random as a control.

A grouping is a tuple of groups, each a tuple of task indices; every task is in exactly one, and groups are in the order
of their first tasks.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import silhouette_score

Grouping = tuple[tuple[int, ...], ...]


def by_nature(natures: Sequence[Hashable]) -> Grouping:
    """Tasks of one nature, such as (material, mechanism), together."""
    return _grouping([list(dict.fromkeys(natures)).index(nature) for nature in natures])


def by_relatedness(relatedness: np.ndarray, count: int | None = None) -> Grouping:
    """Agglomerative clustering with average linkage on 1 - S.

    relatedness: (T, T), symmetric; NaN (not measured) counts as 0. count: number of groups, 1 to T; by default that of
    the best silhouette, one group where none is above 0. Two tasks make one group where S is positive.
    """
    similar = np.nan_to_num(np.asarray(relatedness, dtype=float))
    distance = 1.0 - (similar + similar.T) / 2
    np.fill_diagonal(distance, 0.0)
    tasks = len(distance)
    if count is None and tasks <= 2:
        count = 1 if tasks == 1 or distance[0, 1] < 1 else 2
    if count is not None:
        return _grouping(_clusters(distance, count))
    tried = [_clusters(distance, number) for number in range(2, tasks)]
    scores = [silhouette_score(distance, labels, metric="precomputed") for labels in tried]
    best = int(np.argmax(scores))
    return _grouping(tried[best] if scores[best] > 0 else np.zeros(tasks, dtype=int))


def at_random(like: Grouping, rng: np.random.Generator) -> Grouping:
    """Groups of the same sizes with tasks drawn at random, the control of a grouping: another one, if there is one."""
    like = tuple(sorted(tuple(sorted(group)) for group in like))
    sizes = [len(group) for group in like]
    only = len(sizes) == 1 or max(sizes) == 1
    while True:
        parts = np.split(rng.permutation(sum(sizes)), np.cumsum(sizes)[:-1])
        drawn = tuple(sorted(tuple(sorted(map(int, part))) for part in parts))
        if only or drawn != like:
            return drawn


def within(relatedness: np.ndarray, grouping: Grouping) -> float | None:
    """Mean S over pairs of tasks in one group, the document's coefficient; None where all tasks are alone."""
    return _mean(relatedness, _together(grouping, len(relatedness)))


def between(relatedness: np.ndarray, grouping: Grouping) -> float | None:
    """Mean S over pairs of tasks in different groups; None where there is one group."""
    return _mean(relatedness, ~_together(grouping, len(relatedness)))


def _mean(relatedness: np.ndarray, chosen: np.ndarray) -> float | None:
    values = np.asarray(relatedness)[chosen & ~np.eye(len(relatedness), dtype=bool)]
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def _together(grouping: Grouping, tasks: int) -> np.ndarray:
    group = np.empty(tasks, dtype=int)
    for number, members in enumerate(grouping):
        group[list(members)] = number
    return group[:, None] == group[None, :]


def _clusters(distance: np.ndarray, count: int) -> np.ndarray:
    if len(distance) == 1:
        return np.zeros(1, dtype=int)
    return AgglomerativeClustering(count, metric="precomputed", linkage="average").fit_predict(distance)


def _grouping(labels: Sequence[int]) -> Grouping:
    labels = np.asarray(labels)
    members = (tuple(np.flatnonzero(labels == label).tolist()) for label in dict.fromkeys(labels.tolist()))
    return tuple(members)
