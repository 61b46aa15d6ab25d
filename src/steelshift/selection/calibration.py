"""Probabilities that mean what they say: one temperature, fitted on held-out source images.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax


def temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The T in [.05, 20] that minimizes the cross-entropy of softmax(logits / T); logits (n, K), truth (n,)."""
    if len(truth) == 0:
        return 1.0

    def cost(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(truth)), truth].mean()

    return float(np.exp(minimize_scalar(cost, bounds=(np.log(0.05), np.log(20)), method="bounded").x))

