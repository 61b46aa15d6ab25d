"""Export: an inspector's graphs in each runtime and precision, and the gate that each has to pass.

A graph is written, read back as `inspect` reads it and as the file alone, and compared with the inspector on images
decoded from their bytes. Only what passes both ways stays.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.data.cache import PixelCache, cache_pixels
from steelshift.data.table import read_images, read_labels
from steelshift.errors import DataError, ParityFailed, RunFailed, UsageError
from steelshift.files import explain_full_or_readonly, sync_folder, write_bytes, write_json
from steelshift.inspection import exported, reference, runtimes
from steelshift.inspection.inspector import Inspector, load
from steelshift.inspection.opening import place_of
from steelshift.inspection.parity import Parity, compare, worst
from steelshift.inspection.specification import score_each
from steelshift.inspection.sums import sha256, write_sums
from steelshift.judging import classes_of
from steelshift.lines import locked_target
from steelshift.messages import say
from steelshift.progress import note, showing
from steelshift.training.config import read_mapping

CALIBRATION = 300
"""Images that int8 is calibrated on, at most."""
ENOUGH = 500
"""Images below which a comparison says little of rare differences."""
BATCH = 32
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
Graph = tuple[str, str]
"""Runtime and precision."""


def export(
    run: Path,
    out: Path,
    formats: Sequence[str],
    precisions: Sequence[str],
    verify: Path | None = None,
    calibrate: Path | None = None,
) -> dict[str, Any]:
    """Write the graphs of an inspector, or of a run's, to a new folder; returns what its export.json holds.

    verify: images to compare on, better labelled than not; by default the golden examples.
    calibrate: unlabelled images for int8; by default the target images that the run was trained on.

    Raises ParityFailed, after writing what passed; UsageError, DataError, ArtifactRefused or RunFailed.
    """
    graphs = _asked(formats, precisions)
    inspector = load(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("folder_not_empty", where=out)
    eight_bit = any(precision == "int8" for _, precision in graphs)
    samples = _samples(Path(run), inspector, calibrate) if eight_bit else []
    with _images(Path(run), inspector, verify) as (images, truth), _staged(out) as staging:
        graph, heat = _graph_of(inspector)
        plain = _describe(graph, inspector, run)
        if heat is None:
            note(say("no_heat_graph", encoder=inspector.specification.encoder))
        else:
            write_bytes(staging / exported.HEAT, heat.SerializeToString())
        for precision in dict.fromkeys(precision for _, precision in graphs):
            model = _int8(plain, samples) if precision == "int8" else plain
            for runtime in (runtime for runtime, asked in graphs if asked == precision):
                _write(model, runtime, precision, staging)
        judges = {kind: exported.Exported(inspector.specification, staging, *kind) for kind in graphs}
        found = _compare(inspector, judges, images, truth)
        passed = [kind for kind in graphs if found[kind].passes(kind[1])]
        for kind in set(graphs) - set(passed):
            for name in exported.files_of(*kind):
                (staging / name).unlink()
        record = _record(inspector, Path(run), verify, len(samples))
        record["graphs"] = [_entry(kind, found[kind], judges[kind], Path(run)) for kind in passed]
        if passed:
            _finish(record, staging, Path(run), out)
    if len(passed) < len(graphs):
        failed = "; ".join(_in_words(kind, found[kind]) for kind in graphs if kind not in passed)
        words = "parity_failed" if passed else "parity_failed_all"
        raise ParityFailed(words, failed=failed, n=len(images), out=out)
    return record


def _asked(formats: Sequence[str], precisions: Sequence[str]) -> list[Graph]:
    """Every graph to make, plainest first. Raises UsageError."""
    for key, values, known in (("format", formats, runtimes.RUNTIMES), ("precision", precisions, runtimes.PRECISIONS)):
        if not set(values) <= set(known):
            raise UsageError("option_range", key=key, value=",".join(values), range=", ".join(known))
    runtimes.need(*(package for runtime in formats for package in NEEDED[runtime]))
    if "int8" in precisions:
        runtimes.need("nncf")
    graphs = []
    for runtime in (known for known in runtimes.RUNTIMES if known in formats):
        for precision in (known for known in runtimes.PRECISIONS if known in precisions):
            if precision == "bf16" and (runtime == "onnx" or not runtimes.computes_bf16()):
                note(say("no_bf16", runtime=runtime))  # or fp32 would be verified in its name
            else:
                graphs.append((runtime, precision))
    if not graphs:
        raise UsageError("option_range", key="precision", value="bf16", range="fp32, int8")
    return graphs


def _samples(run: Path, inspector: Inspector, folder: Path | None) -> list[np.ndarray]:
    """Some images of the target line, decoded; no label is read."""
    depth = inspector.specification.bit_depth
    if folder is not None:
        table = read_images([folder])
        rows = sorted(np.random.default_rng(0).permutation(len(table))[:CALIBRATION])
        with tempfile.TemporaryDirectory() as where:
            cache = cache_pixels(table.take(rows), Path(where), bit_depth=depth)
            return [np.array(cache[row]) for row in range(len(cache))]
    try:
        wanted = locked_target(run, "train")
        options = read_mapping(run / "config.yaml")
        table = read_images([Path(place) for place in options["target"]])
    except (DataError, UsageError) as error:  # an inspector by itself, or its images are no longer there
        raise UsageError("no_calibration", path=run) from error
    cache = cache_pixels(table, Path(options.get("cache") or run / "cache"), bit_depth=depth)
    members = [row for row, name in enumerate(cache.table.ids) if name in wanted]
    rows = sorted(np.random.default_rng(0).permutation(members)[:CALIBRATION])
    if not rows:
        raise DataError("no_images", where=", ".join(map(str, options["target"])))
    return [np.array(cache[row]) for row in rows]


@contextmanager
def _images(
    run: Path, inspector: Inspector, verify: Path | None
) -> Iterator[tuple[PixelCache | list[np.ndarray], np.ndarray | None]]:
    """Decoded images to compare on, and their labels where there are some: they only add to what is asked."""
    if verify is None:
        images = exported.golden(place_of(run))
        note(say("few_to_verify", n=len(images), enough=ENOUGH))
        yield images, None
        return
    table = read_images([verify])
    with tempfile.TemporaryDirectory() as where, showing(say("decoding", line="--verify"), len(table)) as advance:
        cache = cache_pixels(table, Path(where), bit_depth=inspector.specification.bit_depth, progress=advance)
        if len(cache) < ENOUGH:
            note(say("few_to_verify", n=len(cache), enough=ENOUGH))
        yield cache, read_labels([verify], classes_of(run, inspector.specification.classes), cache.table)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A neighbour of `out` to write in: whatever happens, `out` is whole or not there."""
    staging = out.with_name(f".{out.name}.tmp")
    with explain_full_or_readonly(out):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _finish(record: dict[str, Any], staging: Path, run: Path, out: Path) -> None:
    place = place_of(run)
    if (place / reference.FILE).is_file():
        write_bytes(staging / reference.FILE, (place / reference.FILE).read_bytes())
    for name in ("MODEL_CARD.md", *(f"golden/{path.name}" for path in sorted((place / "golden").iterdir()))):
        write_bytes(staging / name, (place / name).read_bytes())
    write_json(staging / exported.RECORD, record)
    write_sums(staging)
    with explain_full_or_readonly(out):
        for path in staging.glob("*-*.*"):  # graphs, which their libraries have written
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(staging)
        if out.exists():
            out.rmdir()  # an empty one
        staging.replace(out)
        sync_folder(out.parent)


def _graph_of(inspector: Inspector) -> tuple[Any, Any]:
    from steelshift.inspection.graph import to_onnx

    return to_onnx(inspector)


def _int8(model: Any, samples: list[np.ndarray]) -> Any:
    from steelshift.inspection.quantize import to_int8

    try:
        return to_int8(model, samples)
    except Exception as error:  # a compiler of any network, as in `to_onnx`
        why = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise RunFailed("no_int8", why=why) from error


def _describe(model: Any, inspector: Inspector, run: Path) -> Any:
    """Put into the graph what a program that runs it has to know."""
    specification = inspector.specification
    facts = {
        "schema": exported.SCHEMA,
        "classes": json.dumps(specification.classes, ensure_ascii=False),
        "layout": "NHWC",
        "input": "uint8, 1 or 3 channels, any size; 12 and 16 bit scaled to 8 before",
        "bit_depth": specification.bit_depth or "as each file says",
        "temperature": specification.temperature,
        "threshold": specification.threshold,
        "weights_sha256": sha256(place_of(run) / "model.safetensors"),
        "steelshift": version("steelshift"),
    }
    if specification.heads:
        heads = [dataclasses.asdict(head) for head in specification.heads]
        facts = {key: value for key, value in facts.items() if key not in ("classes", "temperature", "threshold")}
        facts["tasks"] = json.dumps(heads, ensure_ascii=False)  # probabilities lie side by side, in this order
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"steelshift.{key}", str(value)
    return model


def _write(model: Any, runtime: str, precision: str, folder: Path) -> None:
    """OpenVINO reads the ONNX graph, so both runtimes have the same."""
    content = model.SerializeToString()
    names = exported.files_of(runtime, precision)
    if runtime == "onnx":
        write_bytes(folder / names[0], content)
        return
    openvino = runtimes.import_openvino()
    graph = openvino.Core().read_model(content)
    for entry in model.metadata_props:
        graph.set_rt_info(entry.value, ["steelshift", entry.key.removeprefix("steelshift.")])
    graph.set_rt_info({"bf16": "bf16"}.get(precision, "f32"), ["steelshift", "inference_precision_hint"])
    try:
        openvino.save_model(graph, folder / names[0], compress_to_fp16=False)
    except RuntimeError as error:  # its word for a full disk
        raise RunFailed("cannot_write", path=folder / names[0], why=str(error).splitlines()[0][:160]) from error


def _compare(
    inspector: Inspector,
    judges: dict[Graph, exported.Exported],
    images: PixelCache | list[np.ndarray],
    truth: np.ndarray | None,
) -> dict[Graph, Parity]:
    def scores(judge: Any, advance: Callable[[int], None]) -> np.ndarray:
        parts = []
        for start in range(0, len(images), BATCH):
            parts.append(score_each(judge, [images[row] for row in range(start, min(start + BATCH, len(images)))]))
            advance(start + len(parts[-1]))
        return np.concatenate(parts)

    with showing("verify", len(images)) as advance:
        expected = scores(inspector, advance)
    found = {}
    for kind, judge in judges.items():
        ways = [judge] if kind[0] == "onnx" else [judge, dataclasses.replace(judge, whole=True)]
        each = []
        for way in ways:
            with showing(f"verify {' '.join(kind)}{', the file alone' if way.whole else ''}", len(images)) as advance:
                each.append(compare(expected, scores(way, advance), truth, inspector.specification.heads))
        found[kind] = worst(each)
    return found


def _record(inspector: Inspector, run: Path, verify: Path | None, calibrated_on: int) -> dict[str, Any]:
    packages = [name for name in ("torch", "onnx", "onnxruntime", "openvino", "nncf") if find_spec(name)]
    return {
        "schema": exported.SCHEMA,
        "inspector": dataclasses.asdict(inspector.specification),
        "weights_sha256": sha256(place_of(run) / "model.safetensors"),
        "layout": "NHWC",
        "verified_on": "golden examples" if verify is None else str(verify),
        "calibrated_on": calibrated_on,
        "versions": {"steelshift": version("steelshift")} | {name: version(name) for name in packages},
    }


def _entry(kind: Graph, parity: Parity, judge: exported.Exported, run: Path) -> dict[str, Any]:
    return {
        "runtime": kind[0],
        "precision": kind[1],
        "files": exported.files_of(*kind),
        "parity": dataclasses.asdict(parity),
        "golden": score_each(judge, exported.golden(place_of(run))).tolist(),
    }


def _in_words(kind: Graph, parity: Parity) -> str:
    lost = "" if parity.accuracy_lost is None else f", {parity.accuracy_lost:+.2%}"
    return f"{' '.join(kind)} ({parity.same_class:.2%}, {parity.largest_difference:.1e}{lost})"
