"""Which differences between the methods of a suite are more than chance.

After Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006): Wilcoxon's signed-rank test
of two methods with Holm's correction for their number, Friedman's test in the form of Iman and Davenport, Nemenyi's
critical difference of mean ranks.

A cell is a pair of lines with a seed. All methods are compared on the same cells. The seeds of a pair share its images,
so what is found holds for these pairs and not for pairs to come.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from steelshift.errors import UsageError

ALPHA = 0.05
LEAST_CELLS = 6
"""With five, the smallest p that a signed-rank test can have is 0.0625."""
LEAST_METHODS = 3
"""For mean ranks; two methods have the signed-rank test."""


@dataclass(frozen=True)
class Comparison:
    """Arrays are cells x methods, or one value a method."""

    methods: tuple[str, ...]
    left_out: dict[str, int]
    """Methods that have fewer than half of the cells, and how many: one that refuses must not silence the others."""
    cells: tuple[tuple[str, str], ...]
    """Those that all methods have, as pair and seed."""
    possible: int
    """Cells that any method was to have."""
    rows: dict[tuple[str, str, str], dict[str, Any]]
    """By method, pair and seed."""
    reference: str | None
    """What the others are compared with; None without cells or methods."""

    def values(self, key: str) -> np.ndarray | None:
        """A column of the rows; None where some row lacks it."""
        found = [[self.rows[method, *cell][key] for method in self.methods] for cell in self.cells]
        return None if any(None in row for row in found) else np.array(found, float).reshape(-1, len(self.methods))

    @property
    def gain(self) -> np.ndarray:
        """Selected minus the source-only of the same run: encoders may differ from method to method."""
        return self.values("selected") - self.values("source_only")

    @property
    def difference(self) -> np.ndarray:
        """Selected minus that of the reference."""
        selected = self.values("selected")
        return selected - selected[:, [self.methods.index(self.reference)]]

    @property
    def ranks(self) -> np.ndarray:
        """Mean rank of the selected score; 1 is best, equal scores share their ranks."""
        return stats.rankdata(-self.values("selected"), axis=1).mean(axis=0)

    @property
    def ranked(self) -> bool:
        """Whether there is enough for Friedman's test and a critical difference."""
        return len(self.cells) >= LEAST_CELLS and len(self.methods) >= LEAST_METHODS

    def over_pairs(self, values: np.ndarray) -> np.ndarray:
        """Mean of the pairs' means, so that a pair with more seeds does not count more."""
        pairs = np.array([pair for pair, _ in self.cells])
        return np.mean([values[pairs == pair].mean(axis=0) for pair in dict.fromkeys(pairs)], axis=0)


def compare(rows: list[dict[str, Any]], against: str | None = None) -> Comparison:
    """Compare the methods of a table with one of them, by default that of the highest mean. Raises UsageError."""
    scored = {(row["method"], row["pair"], row["seed"]): row for row in rows if not row["error"]}
    every = dict.fromkeys((row["pair"], row["seed"]) for row in rows)
    held = {
        name: sum((name, *cell) in scored for cell in every) for name in dict.fromkeys(row["method"] for row in rows)
    }
    methods = tuple(name for name, count in held.items() if count and 2 * count >= len(every))
    left_out = {name: count for name, count in held.items() if name not in methods}
    cells = tuple(cell for cell in every if methods and all((name, *cell) in scored for name in methods))
    if against is not None and against not in methods:
        raise UsageError("not_compared", name=against, known=", ".join(methods))
    found = Comparison(methods, left_out, cells, len(every), scored, against)
    if against is None and cells:
        best = methods[int(np.argmax(found.over_pairs(found.values("selected"))))]
        found = replace(found, reference=best)
    return found


def signed_ranks(differences: np.ndarray) -> list[float | None]:
    """p of Wilcoxon's two-sided test, a value a column, with Holm's correction.

    None for a column without any difference, which is not tested, and for all where there are too few cells.
    """
    differences = np.round(differences, 6)  # scores have 4 decimals: what is equal must not differ by rounding
    tested = differences.any(axis=0) & (len(differences) >= LEAST_CELLS)
    corrected = iter(holm([signed_rank(column) for column in differences[:, tested].T]))
    return [next(corrected) if one else None for one in tested]


def signed_rank(differences: np.ndarray) -> float:
    """p of Wilcoxon's two-sided test, over all signs that the differences could have had; ranks of zeros are split.

    scipy's exact distribution knows neither ties nor zeros, and its permutations take a second a test.
    """
    sizes = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)  # twice the ranks, which ties make halves
    moved = differences != 0
    seen = abs(np.sign(differences[moved]) @ sizes[moved])
    chances = np.ones(1)  # of every sum of the sizes with a plus
    for size in sizes[moved]:
        chances = (np.pad(chances, (0, size)) + np.pad(chances, (size, 0))) / 2
    sums = 2 * np.arange(len(chances)) - sizes[moved].sum()
    return float(chances[np.abs(sums) >= seen].sum())


def holm(p: list[float]) -> list[float]:
    """Holm's step-down correction: the smallest p times their number, the next times one less, never falling."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1))
    return np.minimum(corrected, 1.0).tolist()


def friedman(scores: np.ndarray) -> float:
    """p that methods which do not differ rank as these do: scores are cells x methods."""
    cells, methods = scores.shape
    if (scores == scores[:, :1]).all():
        return 1.0
    chi2 = stats.friedmanchisquare(*scores.T).statistic
    rest = cells * (methods - 1) - chi2
    if rest < 1e-9:  # every cell has the same order
        return 0.0
    return float(stats.f.sf((cells - 1) * chi2 / rest, methods - 1, (methods - 1) * (cells - 1)))


def critical_difference(methods: int, cells: int) -> float:
    """Nemenyi's: mean ranks that are at least this far apart differ, at the level ALPHA for all pairs together."""
    q = stats.studentized_range.ppf(1 - ALPHA, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * cells)))


def cliques(ranks: np.ndarray, width: float) -> list[list[int]]:
    """Largest groups of two and more whose ranks lie less than `width` apart; places, best first."""
    order = np.argsort(ranks, kind="stable")
    found: list[list[int]] = []
    for first in range(len(order)):
        group = [int(place) for place in order[first:] if ranks[place] - ranks[order[first]] < width]
        if len(group) > 1 and not (found and set(group) <= set(found[-1])):
            found.append(group)
    return found
