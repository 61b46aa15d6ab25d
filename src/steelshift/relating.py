"""What a network of many tasks does, in numbers: how related its tasks are, what they share, and where they collide.

Reads networks and images, and gives plain values that JSON can hold; arrays of tasks are in the order of the tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steelshift.data.tasks import Task, known
from steelshift.losses import tasks as losses
from steelshift.multitask.conflict import Conflict, conflict
from steelshift.multitask.groups import Grouping, between, by_nature, by_relatedness, within
from steelshift.multitask.reading import read
from steelshift.multitask.relatedness import alignment, map_cosine
from steelshift.multitask.separation import cluster_distance, linear_probe, loss_surface, roughness, silhouette
from steelshift.multitask.sharing import shared
from steelshift.nn.encoders import Encoder
from steelshift.nn.sharing import SharedLayer, SharedTrunk, by_task, measure_sharing

ON_SURFACE = 64
"""Images whose loss makes a surface."""
SURFACES = ("mean square", "cross-entropy", "dynamic balanced focal")
Labels = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """An encoder that tasks share as `SharedTrunk` does, in evaluation mode, and its heads."""

    encoder: Encoder
    heads: nn.Module
    tasks: tuple[Task, ...]
    columns: dict[str, slice]
    """Where each task's logits lie."""

    @property
    def trunk(self) -> SharedTrunk:
        return self.encoder.trunk

    def logits(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, classes of all tasks)."""
        return self.heads(self.encoder(images))

    def paths(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> features of every task's path (B, T, F)."""
        return by_task(self.encoder(images), self.trunk.ends, len(self.tasks))


@dataclass(frozen=True)
class Rows:
    """Of a layer, the shared channels that a measurement looks at, and the shared inputs of these."""

    outputs: int
    inputs: int


def shared_rows(network: Network) -> list[Rows]:
    return [
        Rows(layer.after.shared if layer.reads_shared is not None else 0, layer.before.shared)
        for layer in network.trunk.shared_layers
    ]


def common_rows(one: Network, other: Network) -> list[Rows]:
    """What both share, so that their gradients compare: the same parameters of two networks of one encoder."""
    both = zip(shared_rows(one), shared_rows(other), strict=True)
    return [Rows(min(a.outputs, b.outputs), min(a.inputs, b.inputs)) for a, b in both]


def task_gradients(network: Network, images: Tensor, labels: Labels, rows: Sequence[Rows]) -> Tensor:
    """Gradients of the tasks' cross-entropies at shared weights: (T, P), NaN for a task without labels here."""
    layers = [(layer, at) for layer, at in zip(network.trunk.shared_layers, rows, strict=True) if at.outputs]
    weights = [layer.reads_shared.weight for layer, _ in layers]
    found = []
    with torch.enable_grad():
        logits = network.logits(images)
        for name, part in network.columns.items():
            some = losses.decisions(logits[:, part], labels[name])
            if not len(some.answer):
                found.append(None)
                continue
            gradients = torch.autograd.grad(losses.cross_entropy(some), weights, retain_graph=True)
            parts = zip(gradients, layers, strict=True)
            found.append(torch.cat([each[: at.outputs, : at.inputs].flatten() for each, (_, at) in parts]).float())
    count = next((len(each) for each in found if each is not None), 0)
    return torch.stack([torch.full((count,), torch.nan) if each is None else each for each in found])


def conflicts(network: Network, batches: Sequence[tuple[Tensor, Labels]], rows: Sequence[Rows]) -> Conflict | None:
    """Of the gradients at shared weights, over batches; None where tasks share none or none meet."""
    if not any(each.outputs for each in rows):
        return None
    found = conflict(torch.stack([task_gradients(network, images, labels, rows) for images, labels in batches]))
    return found if found.pairs else None


def relatedness(network: Network, images: Tensor, meeting: Conflict | None) -> dict[str, np.ndarray]:
    """By measure, (T, T): maps (of the last shared ones), gradient (where tasks meet), alignment (of private features).

    Measures that a network does not have are left out: maps and gradient need shared channels, alignment private ones.
    """
    found: dict[str, np.ndarray] = {}
    last = _last_maps(network, images)
    if last is not None:
        maps = read([], last, network.logits, list(network.columns.values()), images).maps
        found["maps"] = map_cosine(maps[:, :, : last.after.shared]).numpy()
    if meeting is not None:
        found["gradient"] = meeting.cosine
    if network.trunk.ends.private:
        with torch.no_grad():
            own = network.paths(images)[..., -network.trunk.ends.private :]  # what is shared would be alike by itself
            found["alignment"] = alignment(list(own.transpose(0, 1))).numpy()
    return found


def grouped(tasks: Sequence[Task], measures: dict[str, np.ndarray]) -> dict[str, Any]:
    """Groupings by nature and by each measure, with the mean relatedness within and between their groups."""
    groupings = {"physical": by_nature([task.nature for task in tasks])}
    groupings |= {f"affinity of {name}": by_relatedness(values) for name, values in measures.items()}
    return {name: describe(tasks, grouping, measures) for name, grouping in groupings.items()}


def describe(tasks: Sequence[Task], grouping: Grouping, measures: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "groups": [[tasks[place].name for place in group] for group in grouping],
        "within": {name: within(values, grouping) for name, values in measures.items()},
        "between": {name: between(values, grouping) for name, values in measures.items()},
    }


def sharing(network: Network, images: Tensor) -> dict[str, Any]:
    """Shared channels, parameters and multiplications as configured, and channels as read from what tasks take."""
    layers = network.trunk.shared_layers
    found = read(layers, layers[0], network.logits, list(network.columns.values()), images)
    channels = network.encoder.channels
    plain = torch.zeros(1, channels, *images.shape[2:])
    by_layer = [
        {"configured": layer.after.shared / sum(layer.after), "read": shared(each)}
        for layer, each in zip(layers, found.importance, strict=True)
    ]
    seen = [each["read"] for each in by_layer if not np.isnan(each["read"])]
    return {
        "configured": measure_sharing(network.trunk, plain),
        "read": float(np.mean(seen)) if seen else None,
        "by_layer": [{key: None if np.isnan(value) else value for key, value in each.items()} for each in by_layer],
    }


def separability(
    network: Network, train: tuple[np.ndarray, dict[str, np.ndarray]], test: tuple[np.ndarray, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Of every task on its own path's features (n, T, F) with labels by task; multi-label tasks are left out.

    linear_probe: macro F1 on the test images. cluster_distance, silhouette: of the classes, on the test images.
    """
    found = {}
    for place, task in enumerate(network.tasks):
        (features, labels), (others, their) = (
            (part[0][kept, place], part[1][task.name][kept])
            for part in (train, test)
            for kept in [known(part[1][task.name])]
        )
        classes = len(np.unique(their))
        if task.kind == "multi-label" or len(np.unique(labels)) < 2 or not 2 <= classes < len(their):
            continue
        found[task.name] = {
            "linear_probe": linear_probe(features, labels, others, their),
            "cluster_distance": cluster_distance(others, their),
            "silhouette": silhouette(others, their),
        }
    return found


def pooled(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paths (n, T, F) as features (n T, F), and whose task each is (n T,)."""
    return paths.reshape(-1, paths.shape[2]), np.tile(np.arange(paths.shape[1]), len(paths))


def task_distance(paths: np.ndarray) -> float | None:
    """Distance between the clusters that tasks make of the same images, over their spread; None where they are one.

    paths: (n, T, F).
    """
    if (paths == paths[:, :1]).all():
        return None
    return cluster_distance(*pooled(paths))


def task_probe(train: np.ndarray, test: np.ndarray) -> float | None:
    """How well a fresh linear probe tells from a feature whose task it is: macro F1 on other images, 1 / T by chance.

    train, test: (n, T, F); None of one task. A discriminator that training has deceived may only have been left behind;
    this one was not.
    """
    return None if train.shape[1] < 2 else linear_probe(*pooled(train), *pooled(test))


def surfaces(network: Network, images: Tensor, labels: Labels, seed: int, points: int = 11) -> dict[str, np.ndarray]:
    """Loss surfaces (points, points) around a trained network, by loss: the mean of the tasks."""
    both = nn.ModuleDict({"encoder": network.encoder, "heads": network.heads})
    parameters = {name: value.detach() for name, value in both.named_parameters()}
    images, labels = images[:ON_SURFACE], {name: each[:ON_SURFACE] for name, each in labels.items()}

    def at(moved: dict[str, Tensor]) -> Tensor:
        parts = [{name.partition(".")[2]: value for name, value in moved.items() if name.startswith(part)}
                 for part in ("encoder.", "heads.")]  # fmt: skip
        features = torch.func.functional_call(network.encoder, parts[0], (images,))
        logits = torch.func.functional_call(network.heads, parts[1], (features,))
        of_task = [_losses(logits[:, part], labels[name]) for name, part in network.columns.items()]
        return torch.stack([each for each in of_task if each is not None]).mean(0)

    found = loss_surface(at, parameters, torch.Generator().manual_seed(seed), points=points)
    return {name: found[..., place] for place, name in enumerate(SURFACES)}


def rough(found: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: roughness(surface) for name, surface in found.items()}


def _losses(logits: Tensor, labels: Tensor) -> Tensor | None:
    """The losses of `SURFACES` (3,) of one task; None without labels."""
    some = losses.decisions(logits, labels)
    if not len(some.answer):
        return None
    queue = torch.full((int(some.answer.max()) + 1, losses.REMEMBERED), losses.EMPTY)
    hard = losses.hard_weights(some, losses.remember(queue, some))
    return torch.stack(
        [losses.mean_square(logits, labels), losses.cross_entropy(some), losses.focal(some, weights=hard)]
    )


def _last_maps(network: Network, images: Tensor) -> SharedLayer | None:
    """The last layer with shared channels that gives maps, not numbers."""
    dimensions: dict[SharedLayer, int] = {}
    hooks = [
        layer.register_forward_hook(lambda module, _, output: dimensions.__setitem__(module, output.ndim))
        for layer in network.trunk.shared_layers
    ]
    try:
        with torch.no_grad():
            network.encoder(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    found = [layer for layer, count in dimensions.items() if count == 4 and layer.after.shared]
    return found[-1] if found else None
