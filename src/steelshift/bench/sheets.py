"""The tables of a suite, read from CSV."""

import csv
import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from steelshift.errors import UsageError

SCORES = ("source_only", "selected", "last", "peeked", "oracle")
NOT_JUDGES = ("pair", "method", "seed", "step", "mean_class_accuracy", "largest_share", "baseline_share")
"""Columns of validators.csv; all others are judges."""


def read_sheet(
    path: Path, needed: set[str], numbers: Callable[[str], bool], refusal: UsageError
) -> list[dict[str, Any]]:
    """Rows of text, but for columns of numbers, None where a field is empty.

    Raises `refusal` where there is no such file or it lacks a needed column, UsageError where the file is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text), strict=True)
        rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise refusal from error
    if not needed <= set(reader.fieldnames or ()):
        raise refusal
    for place, row in enumerate(rows, start=1):
        whole = None not in row and None not in row.values() and (place < len(rows) or text.endswith("\n"))
        if not whole or not all(row[key] for key in ("pair", "method", "seed")):
            raise damaged(path, place)
        try:
            row |= {key: float(value) if value else None for key, value in row.items() if numbers(key)}
        except ValueError as error:
            raise damaged(path, place) from error
        if any(isinstance(value, float) and not math.isfinite(value) for value in row.values()):
            raise damaged(path, place)
    return rows


def damaged(path: Path, row: int) -> UsageError:
    """What refuses a table for one of its rows, counted from 1 below the head."""
    return UsageError("sheet_damaged", path=path, row=row)


def read_results(path: Path, needed: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Rows of a results.csv, scores as numbers. Raises UsageError where it is none, or damaged."""
    refusal = UsageError("no_results", path=path)
    wanted = {"pair", "method", "seed", "error", "steps", "by_step", "train_seconds", *SCORES, *needed}
    rows = read_sheet(path, wanted, _is_score, refusal)
    if not rows:
        raise refusal
    for place, row in enumerate(rows, start=1):
        try:
            row["seed"] = str(int(row["seed"]))
            curve = [float(value) for value in row["by_step"].split()]
            whole = len(curve) == len(row["steps"].split())
        except ValueError:
            whole = False
        if not whole or (not row["error"] and None in (row["selected"], row["source_only"])):
            raise damaged(path, place)
    _once(path, rows, "method")
    images: dict[tuple[str, str], str] = {}
    for row in rows:
        cell = row["pair"], row["seed"]
        if row.get("data_sha") and images.setdefault(cell, row["data_sha"]) != row["data_sha"]:
            raise UsageError("sheet_mixed", path=path, pair=cell[0], seed=cell[1])
    return rows


def _once(path: Path, rows: list[dict[str, Any]], *further: str) -> None:
    """Raises UsageError where a row is there twice: it would count twice in every mean."""
    seen = set()
    for place, row in enumerate(rows, start=1):
        key = tuple(row[name] for name in ("pair", "seed", *further))
        if key in seen:
            raise UsageError("sheet_twice", path=path, row=place)
        seen.add(key)


def read_checkpoints(place: Path) -> list[dict[str, Any]]:
    """Rows of validators.csv of a folder, or of the checkpoints beside a table, scores as numbers.

    None where a judge was not asked. Raises UsageError where there is none, or it is damaged.
    """
    path = beside(place) if place.suffix == ".csv" else place / "validators.csv"
    refusal = UsageError("no_validators", path=place)
    rows = read_sheet(path, set(NOT_JUDGES), lambda key: key not in ("pair", "method", "seed"), refusal)
    for number, row in enumerate(rows, start=1):
        if any(row[key] is None for key in NOT_JUDGES):
            raise damaged(path, number)
    _once(path, rows, "method", "step")
    return rows


def _is_score(column: str) -> bool:
    return column in SCORES or column == "train_seconds" or column.endswith(("_accuracy", "_h_score"))


def table_of(place: Path) -> Path:
    """The results.csv of a folder; a file is taken for one."""
    return place / "results.csv" if place.is_dir() else place


def beside(table: Path) -> Path:
    """Where the checkpoints of a table are: validators.csv by a suite's results.csv, else NAME-validators.csv."""
    return table.with_name("validators.csv" if table.name == "results.csv" else f"{table.stem}-validators.csv")
