"""Probabilities that mean what they say: one temperature, fitted on held-out source images.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax


def temperature(logits: np.ndarray, truth: np.ndarray, *, cautious: bool = False) -> float:
    """The T in [.05, 20] that minimizes the cross-entropy of softmax(logits / T); logits (n, K), truth (n,).

    Where all answers are right that is the lowest one, and nearly everything would be called certain. cautious: there
    the true class counts as (n + 1) / (n + 2), and the others as the rest (Platt, Probabilistic Outputs for Support
    Vector Machines, 1999).
    """
    n, classes = logits.shape
    if n == 0:
        return 1.0
    target = np.eye(classes)[truth]
    if cautious and (logits.argmax(1) == truth).all():
        target = np.where(target == 1, n + 1, 1 / (classes - 1)) / (n + 2)

    def cost(log_temperature: float) -> float:
        return -(target * log_softmax(logits / np.exp(log_temperature), axis=1)).sum(1).mean()

    return float(np.exp(minimize_scalar(cost, bounds=(np.log(0.05), np.log(20)), method="bounded").x))

