"""How well classes or tasks lie apart in feature space, how fast training gets there, and how rough its way is."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import f1_score, silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor


def linear_probe(
    features: np.ndarray, labels: np.ndarray, other_features: np.ndarray, other_labels: np.ndarray
) -> float:
    """Linear separability: macro F1 on the other images of a logistic regression (C = 1) on standardized features.

    Features are (n, F), labels class indices (n,), both of a frozen network.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
    model.fit(features, labels)
    return float(f1_score(other_labels, model.predict(other_features), average="macro"))


def cluster_distance(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of two clusters' centres over the mean spread of a cluster, in feature space.

    features (n, F), labels (n,) of two clusters or more. Spread is the root of the mean squared distance to the centre.
    Distances on a t-SNE map are no distances; do not use them here.
    """
    names = np.unique(labels)
    centres = np.stack([features[labels == name].mean(0) for name in names])
    spreads = [
        np.sqrt(np.square(features[labels == name] - centre).sum(1).mean())
        for name, centre in zip(names, centres, strict=True)
    ]
    first, second = np.triu_indices(len(names), 1)
    apart = np.linalg.norm(centres[first] - centres[second], axis=1).mean()
    return float(apart / max(float(np.mean(spreads)), 1e-12))


def silhouette(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette of the clusters, in [-1, 1]."""
    return float(silhouette_score(features, labels))


def flat_map(features: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE of features (n, F), n at least 8, for a picture: (n, 2). Its distances are no distances."""
    if features.shape[1] > 50 and len(features) > 50:
        features = PCA(50, random_state=seed, svd_solver="full").fit_transform(features)
    tsne = TSNE(2, perplexity=min(30, len(features) // 4), init="pca", random_state=seed, method="barnes_hut")
    return tsne.fit_transform(features)


def steps_to(score: float, steps: Sequence[int], scores: Sequence[float | None]) -> float | None:
    """When a score was first reached, between two judged steps by the straight line; None if never, or not known."""
    if None in scores:
        return None
    if scores[0] >= score:
        return float(steps[0])
    for number in range(1, len(scores)):
        low, high = scores[number - 1], scores[number]
        if high >= score:
            share = (score - low) / (high - low)
            return float(steps[number - 1] + share * (steps[number] - steps[number - 1]))
    return None


def loss_surface(
    loss: Callable[[Mapping[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    generator: torch.Generator,
    *,
    reach: float = 1.0,
    points: int = 15,
) -> np.ndarray:
    """Losses on a plane through the parameters: (points, points, ...), an odd number, the network in the middle.

    Directions are random, as long as the parameters filter by filter, and 0 for biases (Li et al., Visualizing the Loss
    Landscape of Neural Nets, NeurIPS 2018). Both axes run from -reach to reach. `loss` gives a scalar or several, of
    parameters by name as `torch.func.functional_call` takes them.
    """
    planes = [{name: _like_filters(value, generator) for name, value in parameters.items()} for _ in range(2)]
    along = np.linspace(-reach, reach, points)

    def at(a: float, b: float) -> np.ndarray:
        moved = {name: value + a * planes[0][name] + b * planes[1][name] for name, value in parameters.items()}
        return loss(moved).double().cpu().numpy()

    with torch.no_grad():
        return np.array([[at(float(a), float(b)) for b in along] for a in along])


def _like_filters(value: Tensor, generator: torch.Generator) -> Tensor:
    if value.ndim < 2:
        return torch.zeros_like(value)
    drawn = torch.randn(value.shape, generator=generator).to(value)
    flat = drawn.flatten(1)
    length = value.detach().flatten(1).norm(dim=1) / flat.norm(dim=1).clamp(min=1e-12)
    return (flat * length[:, None]).reshape(value.shape)


def roughness(surface: np.ndarray) -> float:
    """Share of a loss surface's ups and downs that one valley a line does not need: 0 smooth, towards 1 rough.

    surface: (n, n), positive, n at least 3. Along every row and column the way down to the lowest point and up again is
    taken off all the ways up and down, both of the logarithm of the loss: however steep or flat a valley is, it has 0,
    and the unit of the loss does not matter. A flat surface has 0.
    """
    values = np.log(np.maximum(np.asarray(surface, dtype=float), 1e-12))
    ways, needed = 0.0, 0.0
    for lines in (values, values.T):
        ways += np.abs(np.diff(lines, axis=1)).sum()
        needed += (lines[:, 0] + lines[:, -1] - 2 * lines.min(1)).sum()
    return max(0.0, float(1 - needed / ways)) if ways > 1e-12 * values.size else 0.0
