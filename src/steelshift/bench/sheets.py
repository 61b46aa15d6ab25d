"""The tables of a suite as CSV: read and written in one way."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from steelshift.errors import UsageError


def read_sheet(path: Path, needed: set[str], refusal: UsageError) -> list[dict[str, Any]]:
    """Rows of text. Raises `refusal` where there is no such file, or it lacks a needed column."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise refusal from error
    if rows and not needed <= set(rows[0]):
        raise refusal
    return rows


def as_csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Rows that lack a column leave it empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def number(text: str) -> float | None:
    """None for an empty field. Raises ValueError."""
    return float(text) if text else None


def beside(table: Path) -> Path:
    """Where the checkpoints of a table are: validators.csv by a suite's results.csv, else NAME-validators.csv."""
    return table.with_name("validators.csv" if table.name == "results.csv" else f"{table.stem}-validators.csv")
