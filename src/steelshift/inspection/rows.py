"""Images in, one row each out: the table that `inspect` writes."""

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.data.sources import Found, Taken
from steelshift.data.tasks import ALL_OF, NONE_OF
from steelshift.errors import UsageError
from steelshift.files import append_text, explain_full_or_readonly
from steelshift.inspection.side_by_side import ahead, cores, workers
from steelshift.inspection.specification import Head, Judge, Specification, answer_each
from steelshift.messages import say
from steelshift.progress import Advance
from steelshift.selection.reject import Thresholds

BATCH, LEAST = 32, 8
"""Images of a batch, at most and, where there are few in all, at least."""
MOST_WORKERS = 16
HELD = 64 * 1024 * 1024
"""Bytes of files in memory that end a batch early."""
PIXELS = 20_000_000
"""Of images that are looked at together, in all."""
SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class ImageRow:
    """One image, crop or frame. Numbers are None for what could not be read."""

    id: str | None
    """sha256 of the file, with the crop or frame where there is one."""
    path: str
    class_: str | None = None
    p: float | None = None
    """Calibrated probability of the class, 0 to 1."""
    decision: str = "unreadable"
    """accept, reject-unknown (unlike all that was taught), reject-uncertain (two answers are near), or unreadable."""
    reason: str = ""
    error: str | None = None
    width: int | None = None
    height: int | None = None
    bit_depth: int | None = None
    tile: str | None = None
    """x, y, width and height in pixels of the part of a strip; None for whole images."""
    second_class: str | None = None
    margin: float | None = None
    """By how much the class is more probable than the second."""
    strange: float | None = None
    """How unlike all that was taught the image is, higher is stranger."""
    nearest: str | None = None
    """The source examples that are most like it, `class: name`, the nearest first."""
    heat_map: str | None = None
    """Picture of where the evidence lies, as a path from the table's folder."""
    inspector: str | None = None
    """sha256 of the weights that answered."""
    latency_ms: float | None = None
    """Milliseconds that this image took: reading, decoding, and its share of the time of its batch."""
    of_tasks: tuple[tuple[str, Any], ...] = ()
    """Column and value for every declared task; the fields of the one task are None then."""


_OF_ONE = ("class", "p", "second_class", "margin")
_OF_EACH = ("class", "p", "decision", "second_class", "margin")
COLUMNS = tuple(item.name.rstrip("_") for item in fields(ImageRow) if item.name != "of_tasks")


def columns_of(heads: Sequence[Head]) -> tuple[str, ...]:
    """The columns of a table; of declared tasks one set of them each: `TASK class`, `TASK p` and so on."""
    if not heads:
        return COLUMNS
    common = [name for name in COLUMNS if name not in _OF_ONE]
    return (*common, *(f"{head.task} {name}" for head in heads for name in _OF_EACH))


@dataclass(frozen=True)
class Inspected:
    """A row with what it was made from."""

    row: ImageRow
    taken: Taken | None
    """None where it is no longer needed."""
    heat: np.ndarray | None = None
    """float32 (h, w) in [0, 1], where heat maps are asked for and there is an answer."""
    picture: bytes | None = None
    """A file that shows the heat."""


def limits_of(inspector: Judge, review_rate: float | None = None) -> Thresholds:
    """The inspector's own thresholds, or those of another rate of review. Raises UsageError where it knows none."""
    specification = inspector.specification
    if review_rate is None:
        return Thresholds(specification.threshold, math.inf if specification.strange is None else specification.strange)
    if not 0 <= review_rate < 1:
        raise UsageError("option_range", key="review_rate", value=review_rate, range="0 or more, below 1")
    if inspector.reference is None:
        raise UsageError("no_reference")
    return inspector.reference.thresholds(review_rate)


def inspect_images(
    inspector: Judge,
    images: Iterable[Found],
    advance: Advance = lambda done: None,
    *,
    limits: Thresholds | None = None,
    heat: bool = False,
    finish: Callable[[Inspected], Inspected] = lambda inspected: inspected,
) -> Iterator[Inspected]:
    """A row for every image, in their order, few in memory at a time; what cannot be read is a row too.

    limits: by default the inspector's own. heat: whether heat maps are wanted. finish: done to each where it was
    judged, in several threads.
    """
    limits = limits or limits_of(inspector)
    depth = inspector.specification.bit_depth

    def take(found: Found) -> tuple[Found, Taken, float]:
        began = time.perf_counter()
        return found, found.take(depth), time.perf_counter() - began

    def look(batch: Sequence[Found]) -> list[Inspected]:
        parts = judged_in_parts(inspector, map(take, batch), PIXELS, limits, heat)
        return [finish(inspected) for part in parts for inspected in part]

    # As many batches at a time as there are cores, each from files to answers: nothing waits for a slower part.
    count = min(cores(), MOST_WORKERS)
    everything = iter(images)
    first = next(_batches(everything, count * BATCH), [])
    share = min(BATCH, max(LEAST, -(-len(first) // count)))  # a few images are for all cores too
    done = 0
    with workers(count) as pool:
        for looked in ahead(pool, look, _batches(chain(first, everything), share), count):
            for inspected in looked:
                done += 1
                advance(done)
                yield inspected


def _batches(images: Iterable[Found], count: int) -> Iterator[list[Found]]:
    batch: list[Found] = []
    held = 0
    for found in images:
        batch.append(found)
        held += found.size
        if len(batch) == count or held > HELD:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def judged_in_parts(
    inspector: Judge, images: Iterable[tuple[Found, Taken, float]], most: int, limits: Thresholds, heat: bool
) -> Iterator[list[Inspected]]:
    """As `judged`, in parts of no more than `most` pixels in all or of one image.

    The memory and the time that a part takes grow with its pixels.
    """
    part, held = [], 0
    for each in images:
        decoded = each[1].decoded
        size = 0 if decoded is None else decoded.pixels.shape[0] * decoded.pixels.shape[1]
        if part and held + size > most:
            yield list(judged(inspector, part, limits, heat))
            part, held = [], 0
        part.append(each)
        held += size
    yield list(judged(inspector, part, limits, heat))


def judged(
    inspector: Judge, batch: Sequence[tuple[Found, Taken, float]], limits: Thresholds, heat: bool
) -> Iterator[Inspected]:
    """Rows of images that were taken, each within so many seconds, looked at together, in their order."""
    began = time.perf_counter()
    readable = [taken.decoded.pixels for _, taken, _ in batch if taken.decoded is not None]
    answers: Iterator[dict[str, Any]] = iter(())
    maps: Iterator[np.ndarray | None] = iter([None] * len(readable))
    if readable:
        found = answer_each(inspector, readable, maps=heat)
        answers = iter(_answers(inspector, found.probabilities, found.features, limits))
        if heat:
            maps = iter(inspector.heat(found.maps))
    share = (time.perf_counter() - began) / max(len(readable), 1)
    for found, taken, seconds in batch:
        name = found.path.encode("utf-8", "backslashreplace").decode()
        row = ImageRow(taken.id, name, inspector=inspector.identity or None)
        if taken.decoded is None:
            spent = round(1000 * seconds, 3)
            yield Inspected(replace(row, reason=say("row_unreadable"), error=taken.error, latency_ms=spent), taken)
            continue
        height, width = taken.decoded.pixels.shape[:2]
        known = {"width": width, "height": height, "bit_depth": taken.decoded.bit_depth}
        known["latency_ms"] = round(1000 * (seconds + share), 3)
        yield Inspected(replace(row, **known, **next(answers)), taken, next(maps))


def judge_batch(inspector: Judge, batch: list[tuple[ImageRow, np.ndarray | None]]) -> Iterator[ImageRow]:
    """Rows with what the inspector says of their pixels, uint8 (H, W, C); those without pixels stay as they are."""
    began = time.perf_counter()
    readable = [pixels for _, pixels in batch if pixels is not None]
    answers: Iterator[dict[str, Any]] = iter(())
    if readable:
        found = answer_each(inspector, readable)
        answers = iter(list(_answers(inspector, found.probabilities, found.features, limits_of(inspector))))
    known = {"inspector": inspector.identity or None}
    known["latency_ms"] = round(1000 * (time.perf_counter() - began) / max(len(readable), 1), 3)
    for row, pixels in batch:
        yield row if pixels is None else replace(row, **known, **next(answers))


def _answers(
    inspector: Judge, probabilities: np.ndarray, features: np.ndarray, limits: Thresholds
) -> Iterator[dict[str, Any]]:
    """What rows say of answers (B, K) with features (B, F)."""
    if inspector.specification.heads:
        yield from (_answer_tasks(inspector.specification, each) for each in probabilities)
        return
    classes, reference = inspector.specification.classes, inspector.reference
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    strange, nearest = reference.compare(features) if reference else (None, None)
    for place, (best, second) in enumerate(order):
        p = float(probabilities[place, best])
        answer = {
            "class_": classes[best],
            "p": round(p, 6),
            "second_class": classes[second],
            "margin": round(p - float(probabilities[place, second]), 6),
        }
        decision = "accept" if p >= limits.p else "reject-uncertain"
        if reference is not None:
            found = float(strange[place])
            examples = ((classes[reference.classes[row]], reference.names[row]) for row in nearest[place])
            answer |= {"strange": round(found, 6), "nearest": "; ".join(f"{name}: {file}" for name, file in examples)}
            if found > limits.strange:
                decision = "reject-unknown"
        if decision == "reject-unknown":
            reason = say("row_strange", strange=found, threshold=limits.strange)
        else:
            reason = say("row_sure" if decision == "accept" else "row_uncertain", p=p, threshold=limits.p)
        yield answer | {"decision": decision, "reason": reason}


def _answer_tasks(specification: Specification, probabilities: np.ndarray) -> dict[str, Any]:
    """What is said of every task; a person should look where any of them is not sure."""
    found: list[tuple[str, Any]] = []
    unsure: list[tuple[str, float, float]] = []
    for head, where in zip(specification.heads, specification.columns.values(), strict=True):
        answer = _answer_task(head, probabilities[where])
        sure = answer["p"] >= head.threshold
        answer["decision"] = "accept" if sure else "reject-uncertain"
        if not sure:
            unsure.append((head.task, answer["p"], head.threshold))
        found += [(f"{head.task} {name}", answer[name]) for name in _OF_EACH]
    reason = "; ".join(say("row_task_uncertain", task=task, p=p, threshold=least) for task, p, least in unsure)
    decision = "reject-uncertain" if unsure else "accept"
    return {"decision": decision, "reason": reason or say("row_tasks_sure"), "of_tasks": tuple(found)}


def _answer_task(head: Head, probabilities: np.ndarray) -> dict[str, Any]:
    """Class, confidence and runner-up of one task; of a multi-label task all that are there, and the least sure."""
    if head.kind == "multi-label":
        there = probabilities >= 0.5
        names = [name for name, yes in zip(head.classes, there, strict=True) if yes]
        sure = np.maximum(probabilities, 1 - probabilities)
        least = int(sure.argmin())
        p = float(sure[least])
        return {
            "class": f"{ALL_OF} ".join(names) or NONE_OF,
            "p": round(p, 6),
            "second_class": head.classes[least],
            "margin": round(2 * p - 1, 6),
        }
    best, second = np.argsort(-probabilities, kind="stable")[:2]
    return {
        "class": head.classes[best],
        "p": round(float(probabilities[best]), 6),
        "second_class": head.classes[second],
        "margin": round(float(probabilities[best] - probabilities[second]), 6),
    }


# Writing.


def check_table(path: Path, *, appended: bool = False) -> None:
    """Raises UsageError where a table cannot be written under this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError("output_suffix", path=path)
    if appended and path.suffix.lower() == ".parquet":
        raise UsageError("watch_suffix", path=path)


def write_rows(rows: Iterator[ImageRow], path: Path, heads: Sequence[Head] = ()) -> int:
    """Write rows as .csv, .jsonl or .parquet, whole or not at all; returns how many. Raises UsageError, RunFailed.

    heads: of an inspector of declared tasks.
    """
    check_table(path)
    suffix = path.suffix.lower()
    temporary = path.with_name(path.name + ".tmp")
    with explain_full_or_readonly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    try:
        if suffix == ".parquet":
            count = _write_parquet(rows, temporary, heads)
        else:
            count = _write_text(rows, temporary, suffix, heads)
        with explain_full_or_readonly(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def append_rows(rows: list[ImageRow], path: Path, heads: Sequence[Head] = ()) -> None:
    """Add rows to a .csv or .jsonl table and make them last. Raises RunFailed."""
    text = io.StringIO()
    write = _writer(text, path.suffix.lower(), heads, header=not path.exists() or path.stat().st_size == 0)
    for row in rows:
        write(row)
    append_text(path, text.getvalue())


def read_rows(path: Path, heads: Sequence[Head] = ()) -> list[dict[str, Any]]:
    """Rows of a .csv or .jsonl table that `append_rows` has written; a last row that a crash cut short is cut off.

    Raises UsageError for a table of other columns, RunFailed.
    """
    if not path.exists():
        return []
    content, columns, csv_text = path.read_bytes(), columns_of(heads), path.suffix.lower() == ".csv"
    end = b"\r\n" if csv_text and b"\r\n" in content else b"\n"  # other programs end the rows of a CSV as they like
    whole = content[: content.rfind(end) + len(end)] if end in content else b""
    text = whole.decode("utf-8", "replace")
    header = io.StringIO()
    csv.writer(header).writerow(columns)
    begins = (header.getvalue() if csv_text else f'{{"{columns[0]}": ').encode()[: len(content)]
    right = bool(whole) or content[: len(begins)] == begins
    try:
        if csv_text:
            reader = csv.DictReader(io.StringIO(text, newline=""))
            rows, right = list(reader), right and (not text or tuple(reader.fieldnames or ()) == columns)
        else:
            rows = [json.loads(line) for line in text.split("\n")[:-1]]
            right = right and all(isinstance(row, dict) and tuple(row) == columns for row in rows)
    except ValueError:
        right = False
    if not right:
        raise UsageError("other_table", path=path)
    if len(whole) < len(content):
        with explain_full_or_readonly(path), path.open("r+b") as file:
            file.truncate(len(whole))
    return rows


def record_of(row: ImageRow, heads: Sequence[Head] = ()) -> dict[str, Any]:
    """A row by the names of its columns."""
    found = {name: getattr(row, name + "_" * (name == "class")) for name in COLUMNS}
    if not heads:
        return found
    found |= dict(row.of_tasks)
    return {name: found.get(name) for name in columns_of(heads)}


def _writer(file: Any, suffix: str, heads: Sequence[Head], *, header: bool) -> Callable[[ImageRow], None]:
    if suffix == ".jsonl":
        return lambda row: file.write(json.dumps(record_of(row, heads), ensure_ascii=False) + "\n")
    writer = csv.DictWriter(file, columns_of(heads))
    if header:
        writer.writeheader()
    return lambda row: writer.writerow(record_of(row, heads))


def _write_text(rows: Iterator[ImageRow], path: Path, suffix: str, heads: Sequence[Head]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        write = _writer(file, suffix, heads, header=True)
        for row in rows:
            with explain_full_or_readonly(path):
                write(row)
            count += 1
    return count


def _write_parquet(rows: Iterator[ImageRow], path: Path, heads: Sequence[Head]) -> int:
    import pyarrow
    from pyarrow import parquet

    names = columns_of(heads)
    kinds = {name: pyarrow.float64() for name in names if name.rpartition(" ")[2] in ("p", "margin")}
    kinds |= {key: pyarrow.float64() for key in ("strange", "latency_ms")}
    kinds |= {key: pyarrow.int32() for key in ("width", "height", "bit_depth")}
    schema = pyarrow.schema([(key, kinds.get(key, pyarrow.string())) for key in names])
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while records := [record_of(row, heads) for row in islice(rows, 10_000)]:
            with explain_full_or_readonly(path):
                writer.write_table(pyarrow.Table.from_pylist(records, schema=schema))
            count += len(records)
    return count
