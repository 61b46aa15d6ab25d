"""`inspect` from its options to its table and what lies beside it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from steelshift.data.sources import Found, find_images, need_for
from steelshift.errors import UsageError
from steelshift.files import keep_inputs
from steelshift.inspection.outputs import copy_for_review, heat_picture, is_defect, write_heat_map
from steelshift.inspection.rows import ImageRow, Inspected, check_table, inspect_images, limits_of, write_rows
from steelshift.inspection.specification import Judge
from steelshift.inspection.watching import follow
from steelshift.messages import say
from steelshift.progress import note, showing
from steelshift.signals import stop_requests

FAILING = ("defect", "reject")


@dataclass(frozen=True)
class Wishes:
    """Options of `inspect`."""

    review_rate: float | None = None
    heatmaps: Literal["none", "defects", "all"] = "none"
    review_dir: Path | None = None
    every: int = 1
    watch: bool = False
    fail_on: tuple[str, ...] = ()

    def check(self, sources: Sequence[Path], out: Path) -> None:
        """Raises UsageError for what cannot be done."""
        check_table(out, appended=self.watch)
        keep_inputs(out, sources)
        if not set(self.fail_on) <= set(FAILING):
            raise UsageError("option_range", key="fail_on", value=",".join(self.fail_on), range=", ".join(FAILING))
        if self.every < 1:
            raise UsageError("option_range", key="every", value=self.every, range="1 or more")
        need_for(sources)
        if self.watch:
            for source in sources:
                if not source.is_dir():
                    raise UsageError("watch_folders", path=source)


@dataclass
class Counts:
    rows: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    failing: Counter[str] = field(default_factory=Counter)

    def add(self, row: ImageRow) -> None:
        self.rows += 1
        self.decisions[row.decision] += 1
        if row.class_ is not None:
            self.classes[row.class_] += 1
        self.failing["defect"] += is_defect(row)
        self.failing["reject"] += row.decision != "accept"


def inspect_into(inspector: Judge, sources: Sequence[Path], out: Path, wishes: Wishes) -> Counts:
    """Write a row for every image of the sources. Raises UsageError, DataError, RunFailed."""
    heads = inspector.specification.heads
    single = {
        "--review-rate": wishes.review_rate is not None,
        "--heatmaps defects": wishes.heatmaps == "defects",
        "--fail-on defect": "defect" in wishes.fail_on,
    }
    if heads and any(single.values()):
        what = next(name for name, wished in single.items() if wished)
        raise UsageError("one_task_only", what=what, count=len(heads))
    limits = limits_of(inspector, wishes.review_rate)
    counts = Counts()
    heat = wishes.heatmaps != "none"
    pictures = out.with_name(f"{out.stem}-heatmaps")
    written = [out, pictures] + ([wishes.review_dir] if wishes.review_dir else [])

    def finished(inspected: Inspected) -> Inspected:
        """Drawn where it was judged, and without pixels that nobody needs any more."""
        row = inspected.row
        wanted = inspected.heat is not None and (wishes.heatmaps == "all" or is_defect(row))
        picture = heat_picture(inspected) if wanted else None
        kept = inspected.taken if wishes.review_dir is not None and row.decision != "accept" else None
        return Inspected(row, kept, picture=picture)

    def use(inspected: Inspected) -> ImageRow:
        row = inspected.row
        if inspected.picture is not None:
            path = write_heat_map(inspected.picture, row, pictures, lasting=wishes.watch)
            row = replace(row, heat_map=os.path.relpath(path, out.parent))
        if inspected.taken is not None:
            copy_for_review(inspected, wishes.review_dir)
        counts.add(row)
        return row

    def inspect(found: Iterator[Found], advance=lambda done: None) -> Iterator[Inspected]:
        return inspect_images(inspector, found, advance, limits=limits, heat=heat, finish=finished)

    if wishes.watch:
        note(say("watching", where=", ".join(map(str, sources)), out=out))
        with stop_requests() as requests:
            for _ in follow(list(sources), out, inspect, lambda: bool(requests), use, heads, written):
                pass
        return counts
    found, total = find_images(sources, every=wishes.every, but=written)
    with showing("inspect", total) as advance:
        write_rows(map(use, inspect(found, advance)), out, heads)
    return counts
