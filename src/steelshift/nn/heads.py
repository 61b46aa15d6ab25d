"""Task classifier, heads of many tasks, discriminators and decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.errors import UsageError
from steelshift.nn.sharing import Width, by_task


def task_classifier(width: int, classes: int) -> nn.Linear:
    """One fully connected layer from features to class logits (the patent's C)."""
    return nn.Linear(width, classes)


class Ordinal(nn.Module):
    """Features (B, F) to log probabilities (B, K) of ordered classes, by one score and K - 1 rising thresholds.

    P(y > k) = sigmoid(score - threshold k): the proportional odds model (McCullagh, JRSS B 42(2), 1980).
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.first = nn.Parameter(torch.tensor([2.0 - classes]))
        # softplus of it is 2: below ln 4 a class between others is never the likeliest, and thresholds move slowly
        self.gaps = nn.Parameter(torch.full((classes - 2,), 1.8546))

    def forward(self, features: Tensor) -> Tensor:
        thresholds = torch.cat([self.first, self.first + F.softplus(self.gaps).cumsum(0)])
        above = self.score(features).float() - thresholds
        log_above, log_below = F.logsigmoid(above), F.logsigmoid(-above)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))
        gap = torch.log(-torch.expm1(-F.softplus(self.gaps)))
        between = log_above[:, :-1] + log_below[:, 1:] + gap
        return torch.cat([log_below[:, :1], between, log_above[:, -1:]], 1)


class Heads(nn.Module):
    """One head a task, each on the path of its own: features (B, shared + tasks * private) -> logits side by side."""

    def __init__(self, kinds: Sequence[tuple[str, int]], ends: Width) -> None:
        """kinds: kind and number of classes of every task. ends: of the features."""
        super().__init__()
        self.ends = ends
        self.of_task = nn.ModuleList(
            Ordinal(sum(ends), classes) if kind == "ordinal" else task_classifier(sum(ends), classes)
            for kind, classes in kinds
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, sum of the classes), in the order of the tasks; log probabilities of an ordinal task are its logits."""
        return self.of_paths(by_task(features, self.ends, len(self.of_task)))

    def of_paths(self, paths: Tensor) -> Tensor:
        """(B, tasks, shared + private), what `by_task` gives -> the same."""
        return torch.cat([head(paths[:, task]) for task, head in enumerate(self.of_task)], 1)


LENGTH = 4.0
"""Length of a normalized feature: discriminators begin near chance, and can still learn to tell."""


class Direction(nn.Module):
    """Features (B, F) brought to one length each, so that only their direction is left.

    Without it an encoder escapes its discriminator by making features larger and larger: from random weights the
    adaptation loss then grows without bound and the task is forgotten.
    """

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features.float(), dim=1) * LENGTH


def discriminator(
    width: int, hidden: int, outputs: int, *, dropout: float = 0.0, normalized: bool = True
) -> nn.Sequential:
    """Two fully connected layers (the patent's D_a and D_p): width -> hidden -> outputs.

    normalized: whether features enter by their direction alone.
    """
    if hidden < 1:
        raise UsageError("knob_range", key="hidden", value=hidden, range="1 or more")
    layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)]
    return nn.Sequential(*([Direction()] if normalized else []), *layers)


class TaskDiscriminator(nn.Module):
    """One hidden layer and two branches: the defect (one logit: source line, or real) and the task (T logits).

    normalized: whether features enter by their direction alone.
    """

    def __init__(self, width: int, hidden: int, tasks: int, *, normalized: bool = True) -> None:
        super().__init__()
        if hidden < 1:
            raise UsageError("knob_range", key="hidden", value=hidden, range="1 or more")
        layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.5)]
        self.trunk = nn.Sequential(*([Direction()] if normalized else []), *layers)
        self.defect = nn.Linear(hidden, 1)
        self.task = nn.Linear(hidden, tasks) if tasks else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(n, width) -> (n, 1), (n, T); None for a discriminator of no tasks."""
        found = self.trunk(features)
        return self.defect(found), None if self.task is None else self.task(found)


def feature_generator(inputs: int, hidden: int, width: int) -> nn.Sequential:
    """Noise and class (n, inputs) -> what is added to a feature (n, width)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, width))


RECONSTRUCTED = 32
"""Side in pixels of what a decoder reconstructs."""


def decoder(width: int) -> nn.Sequential:
    """Features (B, width) -> grey image (B, 1, 32, 32)."""
    side = RECONSTRUCTED // 4
    return nn.Sequential(
        nn.Linear(width, 32 * side * side),
        nn.ReLU(),
        nn.Unflatten(1, (32, side, side)),
        nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
    )


def thumbnails(images: Tensor) -> Tensor:
    """What a decoder is to give: grey levels (B, 1, S, S) in [0, 255] -> (B, 1, 32, 32), spread near 1."""
    return F.interpolate((images - 127.5) / 64.0, size=RECONSTRUCTED, mode="area")
