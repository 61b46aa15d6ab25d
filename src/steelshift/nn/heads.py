"""Task classifier, discriminators and decoder."""

from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.errors import UsageError


def task_classifier(width: int, classes: int) -> nn.Linear:
    """One fully connected layer from features to class logits (the patent's C)."""
    return nn.Linear(width, classes)


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
