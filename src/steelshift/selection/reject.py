"""When an answer goes to a person: thresholds for a rate of review, and what a rate buys. Functions of arrays."""

from dataclasses import dataclass

import numpy as np

NEVER = 1e9
"""A strangeness that no image reaches."""
UNKNOWN_SHARE = 0.2
"""Part of the reviews that goes to images unlike the source; the rest goes to improbable answers."""


@dataclass(frozen=True)
class Thresholds:
    """Below `p` an answer is uncertain, above `strange` an image is unlike all that was taught."""

    p: float
    strange: float


def rate_needed(p: np.ndarray, strange: np.ndarray, reference: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The nominal rate of review from which each image (n,) would be reviewed, 0 (at once) to 1 or more (hardly ever).

    reference: p and strange of the images that rates are counted on.
    """
    reference_p, reference_strange = np.sort(reference[0]), np.sort(reference[1])
    low = np.searchsorted(reference_p, p) / max(len(reference_p), 1)
    high = 1 - np.searchsorted(reference_strange, strange, side="right") / max(len(reference_strange), 1)
    return np.minimum(low / (1 - UNKNOWN_SHARE), high / UNKNOWN_SHARE)


def thresholds(p: np.ndarray, strange: np.ndarray, rate: float) -> Thresholds:
    """The thresholds by which a share `rate` of these images (n,), of either reason or both, goes to a person.

    Where both reasons meet in one image, each threshold is as much stricter as keeps the rate.
    """
    if not len(p) or rate <= 0:
        return Thresholds(0.0, NEVER)
    nominal = float(np.quantile(rate_needed(p, strange, (p, strange)), rate))
    return Thresholds(
        float(np.quantile(p, min(1.0, nominal * (1 - UNKNOWN_SHARE)))),
        float(np.quantile(strange, max(0.0, 1 - nominal * UNKNOWN_SHARE))),
    )


def risk_coverage(order: np.ndarray, wrong: np.ndarray, points: int = 101) -> dict[str, list[float] | float]:
    """Error among the accepted (risk) against the share that is accepted (coverage), the surest first.

    order: (n,), higher is surer. wrong: bool (n,). `area` is the mean risk over all coverages (AURC, Geifman and
    El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017).
    """
    sorted_wrong = wrong[np.argsort(-order, kind="stable")].astype(np.float64)
    risk = np.cumsum(sorted_wrong) / np.arange(1, len(wrong) + 1)
    at = np.unique(np.linspace(0, len(wrong) - 1, min(points, len(wrong))).round().astype(int))
    return {
        "coverage": [round(float(index + 1) / len(wrong), 4) for index in at],
        "risk": [round(float(risk[index]), 5) for index in at],
        "area": float(risk.mean()),
    }


def calibration_error(p: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| over equal bins of confidence, by their numbers.

    p: (n,) probability of the given answer; right: bool (n,). Guo et al., ICML 2017.
    """
    place = np.clip((p * bins).astype(int), 0, bins - 1)
    gaps = [abs(p[place == bin].mean() - right[place == bin].mean()) * (place == bin).sum() for bin in np.unique(place)]
    return float(sum(gaps) / len(p)) if len(p) else 0.0
