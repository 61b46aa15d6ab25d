"""Images in, one row each out: the table that `inspect` writes."""

import csv
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.data.cache import crop_pixels
from steelshift.data.decode import Unreadable, decode, read_bytes
from steelshift.data.table import Place
from steelshift.data.tasks import ALL_OF, NONE_OF
from steelshift.errors import UsageError
from steelshift.files import explain_full_or_readonly
from steelshift.inspection.specification import Head, Judge, score_each
from steelshift.messages import say
from steelshift.progress import Advance

BATCH = 32


@dataclass(frozen=True)
class ImageRow:
    """One image or crop. Numbers are None for what could not be read."""

    id: str | None
    """sha256 of the file, with the crop where there is one."""
    path: str
    class_: str | None = None
    p: float | None = None
    """Calibrated probability of the class, 0 to 1."""
    decision: str = "unreadable"
    """accept, reject-uncertain (a person should look) or unreadable."""
    reason: str = ""
    error: str | None = None
    second_class: str | None = None
    p_second: float | None = None
    width: int | None = None
    height: int | None = None
    bit_depth: int | None = None
    of_tasks: tuple[tuple[str, Any], ...] = ()
    """Column and value for every declared task; the fields of the one task are None then."""


_OF_ONE = ("class_", "p", "second_class", "p_second")
_OF_EACH = ("class", "p", "decision", "second_class", "p_second")
COLUMNS = tuple(item.name.rstrip("_") for item in fields(ImageRow) if item.name != "of_tasks")


def columns_of(heads: Sequence[Head]) -> tuple[str, ...]:
    """The columns of a table; of declared tasks one set of them each: `TASK class`, `TASK p` and so on."""
    if not heads:
        return COLUMNS
    common = [name for name in COLUMNS if name not in [key.rstrip("_") for key in _OF_ONE]]
    return (*common, *(f"{head.task} {name}" for head in heads for name in _OF_EACH))


def inspect_images(
    inspector: Judge, places: Sequence[Place], advance: Advance = lambda done: None
) -> Iterator[ImageRow]:
    """A row for every place, in their order, few images in memory at a time; what cannot be read is a row too."""
    everything = iter(places)
    done = 0
    with ThreadPoolExecutor() as pool:

        def start() -> list[Any]:
            return [pool.submit(_read, place, inspector) for place in islice(everything, BATCH)]

        ahead = start()
        while ahead:
            batch, ahead = ahead, start()
            for row in _judge(inspector, [future.result() for future in batch]):
                done += 1
                advance(done)
                yield row


def write_rows(rows: Iterator[ImageRow], path: Path, heads: Sequence[Head] = ()) -> int:
    """Write rows as .csv, .jsonl or .parquet, whole or not at all; returns how many. Raises UsageError, RunFailed.

    heads: of an inspector of declared tasks.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".parquet"):
        raise UsageError("output_suffix", path=path)
    temporary = path.with_name(path.name + ".tmp")
    with explain_full_or_readonly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    try:
        names = columns_of(heads)
        if suffix == ".parquet":
            count = _write_parquet(rows, temporary, names)
        else:
            count = _write_text(rows, temporary, suffix, names)
        with explain_full_or_readonly(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _read(place: Place, inspector: Judge) -> tuple[ImageRow, np.ndarray | None]:
    name = str(place.path).encode("utf-8", "backslashreplace").decode()
    digest = None
    try:
        digest, content = read_bytes(place.path)
        decoded = decode(content, bit_depth=inspector.specification.bit_depth)
        pixels = crop_pixels(decoded.pixels, place)
    except Unreadable as error:
        return ImageRow(digest, name, reason=say("row_unreadable"), error=str(error)), None
    height, width = pixels.shape[:2]
    found = ImageRow(place.named(digest), name, width=width, height=height, bit_depth=decoded.bit_depth)
    return found, np.ascontiguousarray(pixels)


def _judge(inspector: Judge, batch: list[tuple[ImageRow, np.ndarray | None]]) -> Iterator[ImageRow]:
    readable = [pixels for _, pixels in batch if pixels is not None]
    scores = iter(score_each(inspector, readable) if readable else ())
    for row, pixels in batch:
        yield row if pixels is None else _decide(inspector, row, next(scores))


def _decide(inspector: Judge, row: ImageRow, probabilities: np.ndarray) -> ImageRow:
    if inspector.specification.heads:
        return _decide_each(inspector, row, probabilities)
    classes, threshold = inspector.specification.classes, inspector.specification.threshold
    best, second = np.argsort(-probabilities, kind="stable")[:2]
    p = float(probabilities[best])
    sure = p >= threshold
    return ImageRow(
        **asdict(row)
        | {
            "class_": classes[best],
            "p": round(p, 6),
            "decision": "accept" if sure else "reject-uncertain",
            "reason": say("row_sure" if sure else "row_uncertain", p=p, threshold=threshold),
            "second_class": classes[second],
            "p_second": round(float(probabilities[second]), 6),
        }
    )


def _decide_each(inspector: Judge, row: ImageRow, probabilities: np.ndarray) -> ImageRow:
    """What is said of every task; a person should look where any of them is not sure."""
    found: list[tuple[str, Any]] = []
    unsure: list[tuple[str, float, float]] = []
    specification = inspector.specification
    for head, where in zip(specification.heads, specification.columns.values(), strict=True):
        answer = _answer(head, probabilities[where])
        sure = answer["p"] >= head.threshold
        answer["decision"] = "accept" if sure else "reject-uncertain"
        if not sure:
            unsure.append((head.task, answer["p"], head.threshold))
        found += [(f"{head.task} {name}", answer[name]) for name in _OF_EACH]
    reason = "; ".join(say("row_task_uncertain", task=task, p=p, threshold=least) for task, p, least in unsure)
    decision = "reject-uncertain" if unsure else "accept"
    return replace(row, decision=decision, reason=reason or say("row_tasks_sure"), of_tasks=tuple(found))


def _answer(head: Head, probabilities: np.ndarray) -> dict[str, Any]:
    """Class, confidence and runner-up of one task; of a multi-label task all that are there, and the least sure."""
    if head.kind == "multi-label":
        there = probabilities >= 0.5
        names = [name for name, yes in zip(head.classes, there, strict=True) if yes]
        sure = np.maximum(probabilities, 1 - probabilities)
        least = int(sure.argmin())
        return {
            "class": f"{ALL_OF} ".join(names) or NONE_OF,
            "p": round(float(sure[least]), 6),
            "second_class": head.classes[least],
            "p_second": round(float(probabilities[least]), 6),
        }
    best, second = np.argsort(-probabilities, kind="stable")[:2]
    return {
        "class": head.classes[best],
        "p": round(float(probabilities[best]), 6),
        "second_class": head.classes[second],
        "p_second": round(float(probabilities[second]), 6),
    }


def _record(row: ImageRow, names: Sequence[str]) -> dict[str, Any]:
    found = {key.rstrip("_"): value for key, value in asdict(row).items() if key != "of_tasks"} | dict(row.of_tasks)
    return {name: found.get(name) for name in names}


def _write_text(rows: Iterator[ImageRow], path: Path, suffix: str, names: Sequence[str]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        if suffix == ".csv":
            writer.writeheader()
        for row in rows:
            with explain_full_or_readonly(path):
                if suffix == ".csv":
                    writer.writerow(_record(row, names))
                else:
                    file.write(json.dumps(_record(row, names), ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(rows: Iterator[ImageRow], path: Path, names: Sequence[str]) -> int:
    import pyarrow
    from pyarrow import parquet

    kinds = {name: pyarrow.float64() for name in names if name.rpartition(" ")[2] in ("p", "p_second")}
    kinds |= {key: pyarrow.int32() for key in ("width", "height", "bit_depth")}
    schema = pyarrow.schema([(key, kinds.get(key, pyarrow.string())) for key in names])
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while records := [_record(row, names) for row in islice(rows, 10_000)]:
            with explain_full_or_readonly(path):
                writer.write_table(pyarrow.Table.from_pylist(records, schema=schema))
            count += len(records)
    return count
