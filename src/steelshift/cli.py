"""The command line. Each command imports what it needs when it is called; results go to stdout, the rest to stderr."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from steelshift import __version__
from steelshift.errors import SteelshiftError, UsageError
from steelshift.messages import say
from steelshift.progress import note, showing

Positional = tyro.conf.Positional


def check(source: tuple[Path, ...], target: tuple[Path, ...], classes: Path | None = None, json: bool = False) -> None:
    """Look at two lines before training: counts, unreadable files, duplicates, sizes, brightness.

    Args:
        source: Labelled images of the source line: class folders or manifests.
        target: Images of the target line: any folder tree or manifests.
        classes: YAML map from class name to the folder names that hold it.
        json: Print one JSON object.
    """
    from steelshift.data.check import check_lines
    from steelshift.memory import return_memory

    return_memory()
    found = check_lines(source, target, classes)
    if json:
        _print_json(found)
        return
    for line in ("source", "target"):
        part = found[line]
        sizes = ", ".join(f"{size} px ({count})" for size, count in part["sizes"].items())
        print(f"{line}: {part['images']} images, {len(part['unreadable'])} unreadable, {sizes}")
        print(
            f"  brightness {part['brightness']} of 255, sharpness {part['sharpness']}, bit depths {part['bit_depths']}"
        )
        for name, count in part["per_class"].items():
            print(f"  {name}: {count}")
    for sentence in found["findings"]:
        print(f"- {sentence}")


def tiles(
    images: Path,
    tile: int,
    out: Path,
    masks: Path | None = None,
    boxes: Path | None = None,
    stride: int | None = None,
    json: bool = False,
) -> None:
    """Cut large images into tiles of one size, labelled by masks or boxes, and write their manifest.

    Args:
        images: Folder whose subfolders name the defect of their images.
        tile: Side of a tile in pixels.
        out: Manifest to write, .csv.
        masks: Folder of masks, white where a defect is.
        boxes: Folder of Pascal VOC XML files.
        stride: Pixels between tiles; by default their side, so that they do not overlap.
        json: Print one JSON object.
    """
    from steelshift.data.table import list_places
    from steelshift.data.tiles import write_tiles
    from steelshift.memory import return_memory

    return_memory()
    with showing("tiles", len(list_places([images]))) as advance:
        counts = write_tiles(images, out, tile=tile, stride=stride, masks=masks, boxes=boxes, advance=advance)
    if json:
        _print_json({"out": str(out), "tiles": counts})
    else:
        for label, count in sorted(counts.items()):
            print(f"{label}: {count}")


def fit(arguments: list[str]) -> None:
    from steelshift.adapt import fit as run_fit
    from steelshift.memory import keep_memory
    from steelshift.training.config import Config, from_mapping, knobs_of, read_mapping

    keep_memory()
    values = read_mapping(Path(path)) if (path := _value_of("--config", arguments)) else {}
    usual = "multitask" if _value_of("--tasks", arguments) or values.get("tasks") else Config.method
    method = _value_of("--method", arguments) or values.get("method") or usual
    knobs = from_mapping(knobs_of(method), values.pop("knobs", None) or {}, prefix="knobs.")
    required = {name: tyro.MISSING for name in ("source", "out")}
    default = from_mapping(Config, {"method": method} | values, **required, knobs=knobs)
    options = dataclasses.make_dataclass(
        "Options",
        [
            (
                "knobs",
                Annotated[type(knobs), tyro.conf.arg(help=f"Knobs of {method}.")],
                dataclasses.field(default=knobs),
            ),
            ("config", Annotated[Path | None, tyro.conf.arg(help=CONFIG_HELP)], None),
            ("resume", Annotated[bool, tyro.conf.arg(help="Continue an interrupted run.")], False),
            ("json", Annotated[bool, tyro.conf.arg(help="Print one JSON object.")], False),
        ],
        bases=(Config,),
        frozen=True,
        kw_only=True,
    )
    start = options(**{item.name: getattr(default, item.name) for item in dataclasses.fields(Config)})
    parsed = tyro.cli(options, default=start, prog="steelshift fit", description=FIT, args=arguments)
    config = Config(**{item.name: getattr(parsed, item.name) for item in dataclasses.fields(Config)})
    report = run_fit(config, resume=parsed.resume)
    if parsed.json:
        keys = ("method", "auto", "selection", "selected_step", "seconds", "target", "domain", "verdict")
        keys += ("source", "sharing") if "tasks" in report else ()
        _print_json({key: report[key] for key in keys if key in report})
    else:
        print(_summary(report, config.out))


CONFIG_HELP = "YAML file with any of these options but config, resume and json."
FIT = "Move an inspector: labelled source images and unlabelled target images in, an inspector and its report out."


def evaluate(
    run: Positional[Path],
    data: tuple[Path, ...],
    classes: Path | None = None,
    split: Literal["test", "all"] = "test",
    json: bool = False,
) -> None:
    """Score an inspector on labelled images.

    Args:
        run: Folder of a run or of an inspector.
        data: Labelled images: class folders or manifests.
        classes: YAML map from class name to folder names, as in the run.
        split: test: the images that the run kept apart as target test, matched by content; all: every image.
        json: Print one JSON object.
    """
    from steelshift.inspection.opening import of_tasks

    if of_tasks(run):
        from steelshift.tasking import evaluate_tasks

        if classes is not None:
            raise UsageError("not_with_tasks", key="classes")
        found = evaluate_tasks(run, data, split)
        if json:
            _print_json(found)
        else:
            print(f"n: {found['n']}")
            for name, scores in found["tasks"].items():
                print(_task_line(name, scores))
        return
    from steelshift.judging import evaluate as score

    found = score(run, data, classes, split)
    if json:
        _print_json(found)
        return
    for key in ("n", "accuracy", "mean_class_accuracy", "macro_f1"):
        print(f"{key}: {found[key] if key == 'n' else format(found[key], '.4f')}")
    for name, values in found["per_class"].items():
        shown = {key: "-" if values[key] is None else f"{values[key]:.3f}" for key in ("recall", "precision")}
        print(f"  {name}: {values['n']} images, recall {shown['recall']}, precision {shown['precision']}")
    if "open" in found:
        told = "{known:.3f} of known classes, {unknown:.3f} of {n_unknown} images of others, H-score {h_score:.3f}"
        print(f"told apart: {told.format(**found['open'])}")
    for key in ("escape_rate", "overkill_rate"):
        if key in found and found[key]["rate"] is not None:
            print("{}: {rate:.4f} (95 % interval {low:.4f} to {high:.4f}, {n} images)".format(key, **found[key]))


def estimate(
    run: Positional[Path],
    labels: tuple[Path, ...] = (),
    points: float = 5.0,
    to_label: Path | None = None,
    json: bool = False,
) -> None:
    """Say how right an inspector is on the target line without labels: an estimate, a bound, or why neither.

    Args:
        run: Folder of a finished run.
        labels: CSV files with the columns label and path (or id, as in data.lock.json) of some target test images,
            drawn at random; adds what they measure.
        points: How narrow an interval, plus or minus, the number of labels is named for.
        to_label: CSV to write: so many target test images, drawn at random, whose column label a person fills in.
        json: Print one JSON object.
    """
    from steelshift.errors import UsageError
    from steelshift.estimating import estimate_run
    from steelshift.selection.estimate import labels_needed

    if not 0.1 <= points <= 50:
        raise UsageError("option_range", key="points", value=points, range="0.1 to 50")
    found = estimate_run(run)
    if labels:
        from steelshift.judging import measured

        found["labelled"] = measured(run, labels, points)
        count = found["labelled"]["more"]
    else:
        guess = found["estimate"] if found["estimate"] is not None else 0.5
        count = labels_needed(guess, points / 100)
    if to_label is not None:
        from steelshift.judging import list_to_label

        listed = list_to_label(run, to_label, count, labels)
        given = " ".join(map(str, [*labels, to_label]))
        if not listed:
            note(say("to_label_none", points=points, path=to_label))
        else:
            key = "to_label_written" if listed == count else "to_label_fewer"
            note(say(key, count=listed, path=to_label, run=run, labels=given, wanted=count))
    if json:
        _print_json(found)
        return
    for key in ("verdict", "estimate", "lower_bound"):
        value = found[key]
        print(f"{key}: {'-' if value is None else value if key == 'verdict' else format(value, '.3f')}")
    print(found["reason"])
    if labels:
        print(say("estimate_measured", **found["labelled"]))
    else:
        print(say("estimate_to_label", count=count, points=points))


def inspect(
    run: Positional[Path],
    images: Positional[tuple[Path, ...]],
    out: Path,
    runtime: Literal["torch", "onnx", "openvino"] | None = None,
    precision: Literal["fp32", "bf16", "int8"] | None = None,
    review_rate: float | None = None,
    heatmaps: Literal["none", "defects", "all"] = "none",
    review_dir: Path | None = None,
    fail_on: str | None = None,
    every: int = 1,
    watch: bool = False,
    strip: bool = False,
    tile: int | None = None,
    overlap: float = 0.0,
    along: Literal["x", "y"] = "y",
    mm_per_pixel: float | None = None,
    speed: float | None = None,
    first_stage: Path | None = None,
    json: bool = False,
) -> None:
    """Classify images, one row a file; what cannot be read is a row too.

    Args:
        run: Folder of a run, of an inspector, or of an exported one, which needs no torch.
        images: Image files, folders, patterns, manifests, zip and tar archives, videos.
        out: Table to write: .csv, .jsonl or .parquet.
        runtime: Of an exported inspector onnx or openvino, by default the first that it holds; of another torch.
        precision: Of an exported inspector; by default the first that it holds.
        review_rate: Share of images of the target line that goes to a person, below 1; by default the inspector's.
        heatmaps: Whose heat maps to draw, into a folder beside the table.
        review_dir: Folder for copies of images that were not accepted, with their reasons.
        fail_on: defect, reject or both, with a comma between: exit with code 6 where there is one.
        every: Of videos, one frame in so many.
        watch: Follow folders: a row for every image that arrives, exactly once, until a signal; .csv or .jsonl.
        strip: Images are whole strips of any size: a row for every tile, and beside the table a list of defects and a
            map of each strip.
        tile: Of strips, the side of a tile in pixels; by default what the inspector reads.
        overlap: Of strips, the share of a tile that the next one sees again, 0 to below 1.
        along: Direction in which strips run: y, downwards, as line-scan cameras see them, or x.
        mm_per_pixel: Of strips, millimetres on the steel for one pixel.
        speed: Of strips, metres a second.
        first_stage: File of `first-stage`: passes clearly qualified tiles without the network.
        json: Print one JSON object.
    """
    from steelshift.inspection.opening import open_inspector

    measures = {"tile": tile, "overlap": overlap, "along": along, "mm_per_pixel": mm_per_pixel, "speed": speed}
    if strip:
        others = {"review_rate": review_rate, "review_dir": review_dir, "fail_on": fail_on, "watch": watch or None}
        others |= {"heatmaps": None if heatmaps == "none" else heatmaps, "every": None if every == 1 else every}
        given = ["--" + name.replace("_", "-") for name, value in others.items() if value is not None]
        if given:
            raise UsageError("not_with_strip", options=", ".join(given))
        _inspect_strips(lambda: open_inspector(run, runtime, precision), images, out, measures, first_stage, json)
        return
    usual = {"tile": None, "overlap": 0.0, "along": "y", "mm_per_pixel": None, "speed": None, "first_stage": None}
    given = [name for name, value in (measures | {"first_stage": first_stage}).items() if value != usual[name]]
    if given:
        raise UsageError("needs_strip", options=", ".join("--" + name.replace("_", "-") for name in given))
    from steelshift.errors import Found
    from steelshift.inspection.inspecting import Wishes, inspect_into
    from steelshift.memory import return_memory

    return_memory()
    wishes = Wishes(review_rate, heatmaps, review_dir, every, watch, _listed(fail_on))
    wishes.check(images, out)
    inspector = open_inspector(run, runtime, precision)
    counts = inspect_into(inspector, images, out, wishes)
    if json:
        _print_json({"out": str(out), "rows": counts.rows, "decisions": counts.decisions, "classes": counts.classes})
    else:
        decisions = ", ".join(f"{name} {number}" for name, number in sorted(counts.decisions.items()))
        print(f"{out}: {counts.rows} rows" + f", {decisions}" * bool(decisions))
    failing = {name: counts.failing[name] for name in wishes.fail_on if counts.failing[name]}
    if failing:
        raise Found("fail_on", found=", ".join(f"{name} {number}" for name, number in failing.items()), out=out)


def _listed(words: str | None) -> tuple[str, ...]:
    """Words between commas."""
    return tuple(word.strip() for word in words.split(",")) if words else ()


def _inspect_strips(
    load: Callable[[], Any],
    images: tuple[Path, ...],
    out: Path,
    measures: dict[str, Any],
    first_stage: Path | None,
    json: bool,
) -> None:
    from steelshift.data.sources import inside
    from steelshift.data.table import every_place
    from steelshift.files import keep_inputs
    from steelshift.inspection.first_stage import load as load_first_stage
    from steelshift.inspection.strip import Layout, beside, inspect_into

    stage = load_first_stage(first_stage) if first_stage else None
    inspector = load()
    tile = inspector.specification.size if measures["tile"] is None else measures["tile"]
    layout = Layout(**measures | {"tile": tile})
    listed, maps = beside(out)
    written = (out, listed, maps)
    for path in written:
        keep_inputs(path, images)
    places = [place for place in every_place(images) if not inside(place.path, written)]
    with showing("inspect", len(places)) as advance:
        told = inspect_into(inspector, places, out, layout, stage, advance)
    if json:
        _print_json(told)
        return
    decisions = ", ".join(f"{name} {number}" for name, number in sorted(told["decisions"].items()))
    print(f"{out}: {told['rows']} rows, {decisions}")
    print(say("strip_told", **told | {"maps": ", ".join(told["maps"]) or "-"}))
    if stage:
        print(say("strip_forwarded", tiles=told["tiles"], passed=told["tiles"] - told["forwarded"]))


def first_stage(
    source: tuple[Path, ...], out: Path, miss: float = 0.005, classes: Path | None = None, json: bool = False
) -> None:
    """Fit a first stage for `inspect --strip` on labelled tiles: it passes what is clearly qualified.

    Args:
        source: Labelled tiles of one size: manifests as `tiles` writes them, or class folders; one is `qualified`.
        out: File to write, .json.
        miss: Share of defective tiles that it may pass, above 0 and below 1.
        classes: YAML map from class name to the labels that hold it.
        json: Print one JSON object.
    """
    from steelshift.data.table import list_places
    from steelshift.inspection.first_stage import fit as fit_first_stage

    with showing(say("decoding", line="--source"), len(list_places(source))) as advance:
        made = fit_first_stage(source, out, miss=miss, classes=classes, advance=advance)
    if json:
        _print_json({"out": str(out), "tile": made.tile, "threshold": made.threshold, "measured": made.measured})
        return
    missed, forwarded = made.measured["missed"], made.measured["qualified_forwarded"]
    words = {"n": missed["n"], "missed": missed["rate"], "high": missed["high"], "forwarded": forwarded["rate"]}
    print(f"{out}: " + say("first_stage_told", miss=miss, **words))


def export(
    run: Positional[Path],
    out: Path,
    format: str = "onnx,openvino",
    precision: str = "fp32",
    verify: Path | None = None,
    calibrate: Path | None = None,
    json: bool = False,
) -> None:
    """Write an inspector as graphs that run without torch; each is verified, and none is written that differs.

    Args:
        run: Folder of a run or of an inspector.
        out: New folder.
        format: onnx, openvino or both, with a comma between.
        precision: Any of fp32, bf16 and int8, with commas between; bf16 is for OpenVINO.
        verify: Images to compare answers on, 500 or more, labelled or not; by default the golden examples.
        calibrate: Unlabelled images of the target line for int8; by default those that the run was trained on.
        json: Print one JSON object.
    """
    from steelshift.exporting import export as write_graphs

    record = write_graphs(run, out, _listed(format), _listed(precision), verify, calibrate)
    if json:
        _print_json(record)
        return
    for graph in record["graphs"]:
        print(
            "{runtime} {precision}: {images} images, same class {same_class:.2%}, "
            "largest difference {largest_difference:.1e}".format(**graph, **graph["parity"])
        )
    print(out)


def serve(
    run: Positional[Path],
    host: str = "127.0.0.1",
    port: int = 8080,
    threads: int | None = None,
    max_body: str = "16MiB",
    max_pixels: str = "40MP",
    token_file: Path | None = None,
    runtime: Literal["torch", "onnx", "openvino"] | None = None,
    precision: Literal["fp32", "bf16", "int8"] | None = None,
) -> None:
    """Answer over HTTP: images in, rows out, and a page to drop images on. Prints its address.

    Args:
        run: Folder of a run, of an inspector, or of an exported one, which needs no torch. When it changes and is
            whole, the inspector in it takes over without a pause.
        host: Address to listen on; by default only this machine can connect.
        port: 0 takes any that is free.
        threads: To compute with; by default as many as there are processors.
        max_body: Largest body of a request, such as 500kB or 16MiB.
        max_pixels: Largest image, such as 40MP.
        token_file: File with a token that requests have to carry, as `Authorization: Bearer TOKEN`.
        runtime: Of an exported inspector onnx or openvino, by default the first that it holds; of another torch.
        precision: Of an exported inspector; by default the first that it holds.
    """
    from steelshift.inspection.runtimes import need

    need("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client", extra="serve")
    from steelshift.inspection.side_by_side import cores
    from steelshift.serving.engine import Source
    from steelshift.serving.limits import Limits
    from steelshift.serving.serve import pixels_of, size_of
    from steelshift.serving.serve import serve as answer

    if threads is not None and threads < 1:
        raise UsageError("option_range", key="threads", value=threads, range="1 or more")
    limits = Limits(body=size_of(max_body), pixels=pixels_of(max_pixels))
    answer(Source(run, runtime, precision, threads or cores()), host, port, limits, token_file)


def report(run: Positional[Path], json: bool = False) -> None:
    """Write the report of a finished run anew.

    Args:
        run: Folder of the run.
        json: Print one JSON object.
    """
    from steelshift.adapt import render_again

    page = render_again(run)
    if json:
        _print_json({"report": str(page)})
    else:
        print(page)


def synth(
    out: Path, shift: str = "middle", images: int = 700, seed: int = 0, days: int = 0, json: bool = False
) -> None:
    """Draw two synthetic lines of steel or another metal: out/source and out/target by class, masks beside them.

    Args:
        out: New folder.
        shift: How the target differs: mild, middle, high, or a YAML file, which may describe the source too.
        images: Images a line, all classes together.
        seed: Everything random follows from it.
        days: Let the target line age over so many days, a folder each; 0 for none.
        json: Print one JSON object.
    """
    from steelshift.data.camera import load_lines
    from steelshift.data.synthetic import write_lines

    if not 0 <= days <= 99:
        raise UsageError("option_range", key="days", value=days, range="0 to 99")
    source, target = load_lines(shift)
    with showing("draw", 2 * images) as advance:
        write_lines(out, source=source, shift=target, images=images, seed=seed, days=days, progress=advance)
    if json:
        _print_json({"source": str(out / "source"), "target": str(out / "target")})
    else:
        print(out)


def bench(
    suite: Positional[Path],
    out: Path = Path("bench"),
    resume: bool = False,
    jobs: int = 1,
    known: Path | None = None,
    json: bool = False,
) -> None:
    """Run many methods on many pairs of lines over many seeds, side by side, into one table.

    Args:
        suite: YAML file of seeds, settings, pairs and methods.
        out: Folder of the table, results.csv, and of what is needed to continue; paths in the suite are not changed.
        resume: Continue an interrupted suite, or add what the file has gained.
        jobs: Processes at once; the processor's cores are shared out among them. Last digits of figures depend on it.
        known: Earlier results.csv, of another folder or machine; its rows of the same options are not made again.
        json: Print one JSON object.
    """
    from steelshift.bench.running import run_suite
    from steelshift.bench.table import render_table

    table = run_suite(suite, out, resume=resume, jobs=jobs, known=known)
    if json:
        _print_json({"results": str(table)})
    else:
        print(render_table(out, "md"), end="")


def bench_table(
    results: Positional[Path],
    format: Literal["md", "csv", "html"] = "md",
    against: str | None = None,
    picture: Path | None = None,
    validators: bool = False,
) -> None:
    """Print the tables of a suite that was run: by pair with 95 % intervals, over all pairs with tests.

    Args:
        results: Folder that `bench` wrote, or its results.csv.
        format: md, csv or html.
        against: Method that the others are compared with; by default that of the highest mean.
        picture: Critical-difference diagram of the mean ranks to draw, .png or .svg.
        validators: Print instead how well each rule that chooses without target labels goes with the truth.
    """
    from steelshift.bench.judges import render_validators
    from steelshift.bench.table import draw_picture, render_table

    if validators and against is not None:
        raise UsageError("not_together", one="--validators", other="--against")
    print(render_validators(results, format) if validators else render_table(results, format, against), end="")
    if picture:
        draw_picture(results, picture)


def tasks_group(
    tasks: Path,
    data: tuple[Path, ...],
    out: Path,
    by: Literal["physical", "affinity", "random"] = "physical",
    measure: Literal["maps", "gradient", "alignment"] = "maps",
    groups: int | None = None,
    encoder: str = "alexnet",
    size: int = 112,
    steps: int = 300,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Say which tasks should share a network, with how related they are as numbers and as a picture.

    Args:
        tasks: YAML file that declares the tasks.
        data: Labelled images: class folders or manifests.
        out: YAML file to write; the picture lies beside it, and a file for `fit --tasks` of every group.
        by: physical: material and mechanism, as declared; affinity: how related they are; random: the control.
        measure: maps: centred cosine of feature maps; gradient: cosine of gradients; alignment: debiased linear CKA.
        groups: Number of groups by affinity; by default the best silhouette's.
        encoder: alexnet, a vgg or a resnet.
        size: Side in pixels to which images are brought.
        steps: Steps of the training on which it is measured.
        seed: Everything random follows from it.
        json: Print one JSON object.
    """
    from steelshift.grouping import group, group_file
    from steelshift.memory import keep_memory
    from steelshift.training.config import Config

    keep_memory()
    config = Config(
        source=data, target=(), out=out, method="source_only", encoder=encoder, size=size, steps=steps, seed=seed
    )
    found = group(tasks, data, out, by=by, measure=measure, count=groups, config=config)
    if json:
        _print_json(found)
        return
    for name, each in found["compared"].items():
        shown = {key: "-" if each[key] is None else f"{each[key]:.3f}" for key in ("within", "between")}
        print(f"{name}: within groups {shown['within']}, between {shown['between']}")
        for members in each["groups"]:
            print(f"  {', '.join(members)}")
    for number, members in enumerate(found["groups"]):
        print(f"{group_file(out, number)}: {', '.join(members)}")
    print(out)


def tasks_analyse(
    run: Positional[Path], against: Path | None = None, score: float = 0.8, seed: int = 0, json: bool = False
) -> None:
    """Say what a run of many tasks shares, how its tasks collide and lie apart; writes tasks/ into the run.

    Args:
        run: Folder of a finished run of `fit --tasks`.
        against: Another one of the same tasks, such as with hard sharing, whose gradients are compared with its.
        score: Mean class accuracy whose first step is asked for.
        seed: Everything random follows from it.
        json: Print one JSON object.
    """
    from steelshift.analysing import FOLDER, analyse
    from steelshift.memory import keep_memory

    if not 0 < score <= 1:
        raise UsageError("option_range", key="score", value=score, range="above 0, up to 1")
    keep_memory()
    found = analyse(run, against, score, seed)
    if json:
        _print_json(found)
        return
    for name, each in found["groups"].items():
        shown = "; ".join(", ".join(members) for members in each["groups"])
        inside = ", ".join(f"{key} {value:.3f}" for key, value in each["within"].items() if value is not None)
        print(f"groups, {name}: {shown}" + (f" (within: {inside})" if inside else ""))
    configured, read = found["sharing"]["configured"], found["sharing"]["read"]
    print(
        "shared: channels {channels:.3f}, parameters {parameters:.3f}, multiplications {flops:.3f}".format(**configured)
    )
    print(f"shared channels as read from what tasks take: {'-' if read is None else format(read, '.3f')}")
    for name, each in (("conflict", found["conflict"]), ("of the other", found.get("against", {}).get("conflict"))):
        if each is not None:
            print(name + ": rate {rate:.3f}, direction difference {difference:.3f}, {pairs} pairs".format(**each))
    if "difference_reduced_by" in found.get("against", {}):
        print(f"direction difference is reduced by {found['against']['difference_reduced_by']:.3f}")
    for name, each in found["separability"].items():
        print(name + ": linear probe {linear_probe:.3f}, cluster distance {cluster_distance:.3f}".format(**each))
    for about, key in (("distance of tasks", "task_distance"), ("probe of tasks", "task_probe")):
        if found[key] is not None:
            print(f"{about}: {found[key]:.3f}")
    reached, last = found["convergence"]["steps"], found["convergence"]["last"]
    without = "not known" if last is None else "never"
    print(f"steps to {score}: {without if reached is None else format(reached, '.0f')}")
    print("roughness: " + ", ".join(f"{name} {value:.3f}" for name, value in found["roughness"].items()))
    print(run / FOLDER)


def tasks(arguments: list[str]) -> None:
    """Of many tasks: which should share a network (tasks group), and what a run makes of them (tasks analyse)."""
    commands = {"group": tasks_group, "analyse": tasks_analyse}
    tyro.extras.subcommand_cli_from_dict(commands, prog="steelshift tasks", args=arguments)


COMMANDS: dict[str, Callable] = {
    command.__name__.replace("_", "-"): command
    for command in (
        check, tiles, fit, tasks, evaluate, estimate, inspect, first_stage, export, serve, report, synth, bench,
        bench_table,
    )
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code (see `errors`)."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # Read when torch is loaded. Threads that wait for one another sleep after some microseconds and not after
        # milliseconds: beside another program a training step of two threads took eighty times as long as alone, now
        # twenty, and alone it takes what it took.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        note(say("unknown_command", name=name, known=", ".join(COMMANDS)))
        return 2
    try:
        if name in ("fit", "tasks"):
            COMMANDS[name](arguments[1:])
        else:
            tyro.cli(COMMANDS[name], prog=f"steelshift {name}", args=arguments[1:])
    except SteelshiftError as error:
        note(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        note(say("stopped" if name in ("fit", "bench") else "stopped_anew"))
        return 130
    except BrokenPipeError:
        sys.stdout = None  # who reads the results has left; nothing more to say to them
        return 0
    return 0


def _help() -> str:
    first = {name: (command.__doc__ or FIT).strip().splitlines()[0] for name, command in COMMANDS.items()}
    lines = [f"  {name:<12} {text}" for name, text in first.items()]
    return "\n".join(["usage: steelshift COMMAND [--help] [options]", "", *lines])


def _summary(report: dict[str, Any], run: Path) -> str:
    """The table of a finished run, for people."""
    if "tasks" in report:
        lines = [_task_line(name, scores) for name, scores in report["source"]["tasks"].items()]
        for name, scores in report.get("target", {}).get("selected", {"tasks": {}})["tasks"].items():
            before = report["target"]["source_only"]["tasks"][name]["mean_class_accuracy"]
            alone = "-" if before is None else f"{before:.3f}"
            lines.append(_task_line(name, scores, f"target ({alone} from the source alone)"))
        lines += [report["verdict"], *([report["target"]["sentence"]] if "target" in report else [])]
        return "\n".join([*lines, f"report: {run / 'report.html'}   inspector: {run / 'inspector'}"])
    lines = []
    if "auto" in report:
        tried = ", ".join("{method} {score:.3f}".format(**each) for each in report["auto"])
        lines.append(say("auto_chose", method=report["method"], rule=report["selection"], tried=tried))
        lines += [say("auto_left_out", method=each["method"]) for each in report["auto"] if each.get("left_out")]
    if "target" in report:
        target = report["target"]
        for key in ("source_only", "selected", "last", "peeked", "oracle"):
            value = "-" if target[key] is None else f"{target[key]:.3f}"
            lines.append(f"{key:<12} {value}")
        lines.append(f"(mean class accuracy on {target['n']} target test images; selection: {report['selection']})")
        lines.append(target["sentence"])
    else:
        lines.append(report["verdict"])
    if "estimate" in report:
        shown = {"estimate": "{estimate:.3f}, at least {lower_bound:.3f}", "bound": "at least {lower_bound:.3f}"}
        told = shown.get(report["estimate"]["verdict"], "-").format(**report["estimate"])
        lines.append(f"without labels: {told} (accuracy on target test images; see steelshift estimate {run})")
    lines.append(f"report: {run / 'report.html'}   inspector: {run / 'inspector'}")
    return "\n".join(lines)


def _task_line(name: str, scores: dict[str, Any], line: str = "") -> str:
    """What of one task is printed."""
    value = "-" if scores["mean_class_accuracy"] is None else f"{scores['mean_class_accuracy']:.3f}"
    f1 = "-" if scores["macro_f1"] is None else f"{scores['macro_f1']:.3f}"
    return f"{name:<16} {line + ': ' if line else ''}mean class accuracy {value}, macro F1 {f1}, {scores['n']} images"


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _value_of(flag: str, arguments: list[str]) -> str | None:
    """The value of an option before all options are known."""
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return None


if __name__ == "__main__":
    sys.exit(main())
