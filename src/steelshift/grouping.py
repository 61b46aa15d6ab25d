"""Which of the declared tasks should share a network: measured on a short training, written as YAML and a picture."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import yaml

from steelshift import relating
from steelshift.data.cache import PixelCache, cache_pixels
from steelshift.data.splits import TEST, TRAIN, split
from steelshift.data.stream import SourceStream, resized
from steelshift.data.table import read_images
from steelshift.data.tasks import Task, check_data, columns_of, known, load_tasks, read_task_labels, strata
from steelshift.errors import DataError, Interrupted, RunFailed, UsageError
from steelshift.files import keep_inputs, read_words, read_yaml, write_bytes, write_text
from steelshift.messages import say
from steelshift.methods import METHODS
from steelshift.methods.method import Start
from steelshift.multitask.groups import Grouping, at_random, by_nature, by_relatedness
from steelshift.nn.encoders import build_encoder
from steelshift.nn.heads import Heads
from steelshift.nn.sharing import Kind, sharing_of
from steelshift.progress import note, showing
from steelshift.relating import Network
from steelshift.report.relations import draw_relatedness
from steelshift.training.config import Config, resolve
from steelshift.training.loop import Phase, train
from steelshift.training.precision import choose

By = Literal["physical", "affinity", "random"]
Measure = Literal["maps", "gradient", "alignment"]
PROBED = 64
"""Images on which tasks are compared, at most."""
BATCHES = 8
"""Batches of training images whose gradients are compared."""
_SAID = {
    "maps": "centred cosine of what tasks take from the last shared maps",
    "gradient": "cosine of the tasks' gradients at shared weights",
    "alignment": "linear centred kernel alignment of separate networks",
}


def group(
    tasks_file: Path, places: Sequence[Path], out: Path, *, by: By, measure: Measure, count: int | None, config: Config
) -> dict[str, Any]:
    """Group tasks, write the groups to `out` (YAML) and the relatedness beside it (SVG); returns what was written.

    The declarations of each group are written beside it too, as `fit --tasks` takes them.

    by: whose groups are written; all three are compared. measure: how related tasks are; alignment needs a network a
    task, the others one that all share. count: number of groups by affinity; by default the best silhouette's.
    config: encoder, size, batch, steps, seed and device of the training that it is measured on.

    Raises UsageError, DataError, RunFailed.
    """
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError("groups_not_yaml", path=out)
    keep_inputs(out, [tasks_file, *places])
    tasks, declared = load_tasks(tasks_file), read_words(tasks_file)
    earlier = _groups_in(out)
    for number in range(max(len(tasks), earlier)):  # written, or taken away
        keep_inputs(group_file(out, number), [tasks_file, *places])
    if len(tasks) < 2:
        raise UsageError("groups_of_one", path=tasks_file)
    if count is not None and not 1 <= count <= len(tasks):
        raise UsageError("option_range", key="groups", value=count, range=f"1 to {len(tasks)}")
    check_data(tasks, places)
    with tempfile.TemporaryDirectory() as folder:
        cache, labels = _labelled(tasks, places, Path(folder), config)
        side = split(cache.table, cache.digests, strata(labels), train_ratio=0.8, val_ratio=0.1, seed=config.seed)
        if not all((side == part).any() for part in (TRAIN, TEST)):
            raise DataError("too_few_images", line="source", count=len(cache))
        try:
            config = resolve(dataclasses.replace(config, tasks=tasks_file))
            values = _measured(tasks, cache, labels, side, measure, config, Path(folder))
        except Interrupted as stopped:  # what a fit would continue from goes with the folder
            failed = RunFailed("group_stopped", path=out)
            failed.exit_code = stopped.exit_code
            raise failed from stopped
    groupings = _groupings(tasks, values, count, config.seed)
    compared = {name: relating.describe(tasks, found, {measure: values}) for name, found in groupings.items()}
    names = [task.name for task in tasks]
    record = {
        "by": by,
        "measure": measure,
        "groups": [list(members) for members in compared[by]["groups"]],  # no alias in the YAML
        "compared": {
            name: {"groups": found["groups"], "within": _plain(found["within"][measure]),
                   "between": _plain(found["between"][measure])}
            for name, found in compared.items()
        },
        "relatedness": {name: dict(zip(names, map(_plain, row), strict=True))
                        for name, row in zip(names, values.tolist(), strict=True)},
        "trained": {key: getattr(config, key) for key in ("encoder", "size", "steps", "seed")},
    }  # fmt: skip
    about = f"{_SAID[measure]}; frames: {by}"
    write_bytes(out.with_suffix(".svg"), draw_relatedness(names, values, groupings[by], about))
    write_text(out, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
    for number in range(len(record["groups"]), earlier):  # of a grouping that this one takes the place of
        group_file(out, number).unlink(missing_ok=True)
    for number, members in enumerate(record["groups"]):
        of_group = {name: declared[name] for name in members}
        write_text(group_file(out, number), yaml.safe_dump(of_group, sort_keys=False, allow_unicode=True))
    return record


def group_file(out: Path, number: int) -> Path:
    """Where the declarations of a group are, as `fit --tasks` takes them."""
    return out.with_name(f"{out.stem}-{number + 1}{out.suffix}")


def _groups_in(out: Path) -> int:
    """How many groups an earlier grouping wrote there; 0 where there is none."""
    try:
        found = read_yaml(out)
        return len(found["groups"]) if found.keys() >= {"by", "groups", "compared"} else 0
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, AttributeError):
        return 0


def _groupings(tasks: Sequence[Task], values: np.ndarray, count: int | None, seed: int) -> dict[str, Grouping]:
    """By every name of `By`; the random groups are as large as the physical ones."""
    physical = by_nature([task.nature for task in tasks])
    found = (physical, by_relatedness(values, count), at_random(physical, np.random.default_rng(seed)))
    return dict(zip(get_args(By), found, strict=True))


def _labelled(
    tasks: Sequence[Task], places: Sequence[Path], folder: Path, config: Config
) -> tuple[PixelCache, dict[str, np.ndarray]]:
    """Images with a label of any task, and their labels. Raises DataError where a task has none of two classes."""
    table = read_images(places)
    with showing(say("decoding", line="source"), len(table)) as advance:
        cache = cache_pixels(table, folder / "cache", bit_depth=config.bit_depth, progress=advance)
    labels, unlisted = read_task_labels(places, tasks, cache.table)
    for task in tasks:
        if unlisted[task.name]:
            shown = ", ".join(sorted(unlisted[task.name])[:5])
            note(say("task_unlisted", task=task.name, count=sum(unlisted[task.name].values()), names=shown))
        if len(np.unique(labels[task.name][known(labels[task.name])], axis=0)) < 2:
            raise DataError("task_no_labels", task=task.name, where=", ".join(map(str, places)))
    kept = np.flatnonzero(np.any([known(values) for values in labels.values()], axis=0))
    return cache.take(kept), {name: values[kept] for name, values in labels.items()}


def _measured(
    tasks: tuple[Task, ...],
    cache: PixelCache,
    labels: dict[str, np.ndarray],
    side: np.ndarray,
    measure: Measure,
    config: Config,
    folder: Path,
) -> np.ndarray:
    """Relatedness (T, T) after a training of plain cross-entropy with equal weights."""
    rows = np.flatnonzero(side == TRAIN)
    fast = choose(config.device, config.precision)
    stream = SourceStream(
        cache=cache.take(rows),
        labels={name: values[rows] for name, values in labels.items()},
        sampler="random",
        batch=config.batch,
        size=config.size,
        augmentation=config.augmentation,
        seed=config.seed,
        bf16=fast.bf16,
        device=fast.device,
    )
    kind: Kind = "separate" if measure == "alignment" else "hard"
    torch.manual_seed(config.seed)
    encoder = build_encoder(config.encoder, config.size, sharing=sharing_of(kind, (), len(tasks)))
    heads = Heads([(task.kind, len(task.classes)) for task in tasks], encoder.trunk.ends)
    source_only = METHODS["source_only"]
    method = source_only(Start(encoder, heads, "joint", stream.epoch, tasks), source_only.Knobs())
    with showing(say("relating"), config.steps) as advance:
        train(Phase("relating", 0, stream, None, config.steps, folder), method, config, fast, advance)
    network = Network(encoder.cpu().eval(), heads.cpu().eval(), tasks, columns_of(tasks))
    meeting = None
    if measure == "gradient":
        batches = [stream[config.steps + number] for number in range(BATCHES)]
        pairs = [(each.images.cpu(), {name: part.cpu() for name, part in each.labels.items()}) for each in batches]
        meeting = relating.conflicts(network, pairs, relating.shared_rows(network))
        if meeting is None:
            raise DataError("tasks_never_meet")
    images = resized(cache, np.flatnonzero(side == TEST)[:PROBED], config.size)
    return relating.relatedness(network, images, meeting)[measure]


def _plain(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 4)
