"""What a finished run of many tasks does, measured on images of its source line, as numbers and pictures in the run."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steelshift import relating
from steelshift.data.cache import PixelCache, cache_pixels
from steelshift.data.stream import resized
from steelshift.data.table import read_images
from steelshift.data.tasks import Task, read_task_labels
from steelshift.errors import DataError, UsageError
from steelshift.files import write_bytes, write_json
from steelshift.inspection import inspector as artifact
from steelshift.inspection.inspector import in_batches
from steelshift.inspection.opening import of_tasks
from steelshift.inspection.specification import Specification
from steelshift.lines import locked_places, locked_tasks
from steelshift.messages import say
from steelshift.multitask.conflict import Conflict, reduction
from steelshift.multitask.separation import flat_map, steps_to
from steelshift.progress import showing
from steelshift.relating import Network
from steelshift.report.relations import draw_maps, draw_relatedness, draw_surfaces

FOLDER = "tasks"
PROBED = 64
"""Images on which maps and losses are read, at most."""
PROBE = 1000
"""Images of each part on which features are judged, at most."""
TASK_PROBE = 200
"""Images of each part from whose features the task is told, at most."""
BATCH, BATCHES = 32, 8
"""Of the gradients that are compared."""


def analyse(run: Path, against: Path | None, score: float, seed: int) -> dict[str, Any]:
    """Analyse a run and write what is found to `run/tasks/`: analysis.json and three pictures. Returns the numbers.

    against: a run of the same tasks and encoder that shares in another way; gradients are compared on the weights that
    both share, and on the same images. score: mean class accuracy that convergence is asked for.

    Raises UsageError, DataError, ArtifactRefused, RunFailed.
    """
    network, specification = _network(run)
    convergence = _convergence(run, score)
    tasks, size = network.tasks, specification.size
    rival = None
    if against is not None:
        rival, its_own = _network(against)
        if [(task.name, task.classes) for task in rival.tasks] != [(task.name, task.classes) for task in tasks]:
            raise UsageError("analyse_other_tasks", run=run, other=against)
        if its_own.size != size:
            raise UsageError("analyse_other_encoder")
    with tempfile.TemporaryDirectory() as folder, showing(say("analysing"), 4) as advance:
        parts = {name: _part(run, name, tasks, specification.bit_depth, Path(folder)) for name in ("train", "test")}
        images = {name: resized(cache, np.arange(len(cache)), size) for name, (cache, _) in parts.items()}
        labels = {
            name: {task: torch.from_numpy(values) for task, values in found.items()}
            for name, (_, found) in parts.items()
        }
        batches = [
            (images["train"][start : start + BATCH], _cut(labels["train"], slice(start, start + BATCH)))
            for start in range(0, min(len(images["train"]), BATCH * BATCHES), BATCH)
        ]
        advance(1)
        rows = relating.shared_rows(network) if rival is None else _common(network, rival)
        meeting = relating.conflicts(network, batches, rows)
        related = relating.relatedness(network, images["test"][:PROBED], meeting)
        found: dict[str, Any] = {
            "tasks": [task.name for task in tasks],
            "relatedness": {name: _numbers(values) for name, values in related.items()},
            "groups": relating.grouped(tasks, related),
            "sharing": relating.sharing(network, images["test"][:PROBED]),
            "conflict": _meeting(meeting),
        }
        if rival is not None:
            other = relating.conflicts(rival, batches, rows)
            found["against"] = {"run": str(against), "conflict": _meeting(other)}
            if meeting is not None and other is not None:
                found["against"]["difference_reduced_by"] = reduction(other, meeting)
        advance(2)
        paths = {name: in_batches(network.paths, part[:PROBE]) for name, part in images.items()}
        judged = [(paths[name], _cut(parts[name][1], slice(PROBE))) for name in ("train", "test")]
        found["separability"] = relating.separability(network, *judged)
        found["task_distance"] = relating.task_distance(paths["test"])
        found["task_probe"] = relating.task_probe(*(paths[name][:TASK_PROBE] for name in ("train", "test")))
        found["convergence"] = convergence
        advance(3)
        surfaces = relating.surfaces(network, images["test"], labels["test"], seed)
        found["roughness"] = relating.rough(surfaces)
    folder = run / FOLDER
    _draw(folder, network, related, found, surfaces, paths["test"], seed)
    write_json(folder / "analysis.json", found)
    return found


def _network(run: Path) -> tuple[Network, Specification]:
    """The network of a run of declared tasks, and how it takes its images."""
    if not of_tasks(run):
        raise UsageError("analyse_one_task", run=run)
    inspector = artifact.load(run)
    specification = inspector.specification
    network = Network(inspector.encoder, inspector.classifier, locked_tasks(run), specification.columns)
    return network, specification


def _part(
    run: Path, name: str, tasks: tuple[Task, ...], bit_depth: int | None, folder: Path
) -> tuple[PixelCache, dict[str, np.ndarray]]:
    """Source images of a part of a run, train or test, and their labels by task."""
    places = locked_places(run, "source")
    try:
        rows = json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["source"][name]
        wanted = {row["id"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("run_unreadable", run=run) from error
    table = read_images(places)
    table = table.take(row for row, each in enumerate(table.ids) if each in wanted)
    if not len(table):
        raise DataError("run_images_gone", where=", ".join(map(str, places)), run=run)
    limited = np.random.default_rng(0).permutation(len(table))[:PROBE]
    cache = cache_pixels(table.take(np.sort(limited)), folder / name, bit_depth=bit_depth)
    labels, _ = read_task_labels(places, tasks, cache.table)
    return cache, labels


def _common(one: Network, other: Network) -> list[relating.Rows]:
    if len(one.trunk.shared_layers) != len(other.trunk.shared_layers):
        raise UsageError("analyse_other_encoder")
    return relating.common_rows(one, other)


def _convergence(run: Path, score: float) -> dict[str, Any]:
    """Steps to the asked mean class accuracy on source validation images, from the checkpoints that were kept."""
    try:
        kept = json.loads((run / "report.json").read_text(encoding="utf-8"))["candidates"]
        steps, scores = kept["step"], kept["source_validation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("no_report", path=run) from error
    return {"score": score, "steps": steps_to(score, steps, scores), "last": scores[-1]}


def _draw(
    folder: Path,
    network: Network,
    related: dict[str, np.ndarray],
    found: dict[str, Any],
    surfaces: dict[str, np.ndarray],
    paths: np.ndarray,
    seed: int,
) -> None:
    names = found["tasks"]
    place = {name: index for index, name in enumerate(names)}
    for measure, values in related.items():
        groups = [[place[name] for name in group] for group in found["groups"][f"affinity of {measure}"]["groups"]]
        picture = draw_relatedness(names, values, groups, f"{measure}; frames: groups by affinity")
        write_bytes(folder / f"relatedness-{measure}.svg", picture)
    features, which = relating.pooled(paths)
    if found["task_distance"] is not None and len(features) >= 20:
        some = np.random.default_rng(seed).permutation(len(features))[:PROBE]
        maps = {"features of every task": (flat_map(features[some], seed), which[some])}
        write_bytes(folder / "map.svg", draw_maps(maps, names, "t-SNE: its distances are no distances"))
    about = "loss on a random plane through the trained network"
    write_bytes(folder / "surfaces.svg", draw_surfaces(surfaces, found["roughness"], about))


def _meeting(found: Conflict | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {key: getattr(found, key) for key in ("rate", "difference", "angle", "pairs")}


def _numbers(values: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else round(float(value), 6) for value in row] for row in values]


def _cut(labels: dict[str, Any], part: slice) -> dict[str, Any]:
    return {name: values[part] for name, values in labels.items()}
