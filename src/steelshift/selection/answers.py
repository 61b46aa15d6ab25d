"""What a network answers to images, as arrays."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax


@dataclass(frozen=True)
class Answers:
    """Of one network to n images."""

    features: np.ndarray
    """(n, F)."""
    logits: np.ndarray
    """(n, K), uncalibrated."""

    @property
    def probabilities(self) -> np.ndarray:
        return softmax(self.logits.astype(np.float64), axis=1)

    @property
    def predicted(self) -> np.ndarray:
        return self.logits.argmax(1)
