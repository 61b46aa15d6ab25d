"""Task classifier and discriminators."""

from torch import nn

from steelshift.errors import UsageError


def task_classifier(width: int, classes: int) -> nn.Linear:
    """One fully connected layer from features to class logits (the patent's C)."""
    return nn.Linear(width, classes)


def discriminator(width: int, hidden: int, outputs: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Two fully connected layers (the patent's D_a and D_p): width -> hidden -> outputs."""
    if hidden < 1:
        raise UsageError("knob_range", key="hidden", value=hidden, range="1 or more")
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))
