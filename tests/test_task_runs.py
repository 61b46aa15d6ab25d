"""Whole runs of declared tasks: from two data sets, with a target line and without, stopped and continued."""

import csv
import dataclasses
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pyarrow import parquet
from scipy.special import softmax

from builders import write
from lines import asked_to_stop, tiny_config
from steelshift.adapt import fit
from steelshift.cli import main
from steelshift.errors import DataError, Interrupted, UsageError
from steelshift.inspection import inspector as artifact
from steelshift.inspection.parity import compare
from steelshift.inspection.specification import Head
from steelshift.lines import read_lines
from steelshift.tasking import calibrate_tasks
from steelshift.training.config import Config, resolve
from test_run import digests, weights

pytestmark = pytest.mark.whole

TASKS = """
瑕疵 type:
  classes: [qualified, crazing, inclusion, patches, pitting, rolled-in scale, scratches]
wide:
  kind: ordinal
  classes: {none: [qualified], some: [scratches, inclusion, pitting], most: [crazing, patches, rolled-in scale]}
  data: source
many:
  kind: multi-label
  classes:
    dark: [inclusion, pitting, patches]
    long: [scratches, inclusion]
    none: [qualified, crazing, rolled-in scale]
  data: target
bad:
  kind: yes/no
  classes: {no: [qualified], yes: [crazing, inclusion, patches, pitting, rolled-in scale]}
"""


@dataclass(frozen=True)
class Said:
    """What of a specification calibration reads and writes."""

    heads: tuple[Head, ...]
    columns: dict[str, slice]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tasks") / "tasks.yaml", TASKS.encode())


def config_of(lines: Path, out: Path, declared: Path, **options: object) -> Config:
    """Both lines as source data sets; no target line but where it is asked for."""
    places = {"source": (lines / "source", lines / "target"), "target": ()}
    few = {"steps": 4, "pretrain_steps": 2, "candidates": 2}
    return tiny_config(lines, out, **places | few | {"method": "multitask", "tasks": declared} | options)


@pytest.fixture(scope="module")
def alone(lines: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a target line."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    fit(config_of(lines, run, tasks))
    return run


@pytest.fixture(scope="module")
def moved(lines: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a target line, task-aware adversaries and the oracle; the task `many` has no labels then."""
    some = TASKS.partition("many:")[0] + "bad:" + TASKS.partition("bad:")[2]
    run = tmp_path_factory.mktemp("runs") / "moved"
    declared = write(run.parent / "some.yaml", some.encode())
    places = {"source": (lines / "source",), "target": (lines / "target",), "oracle": True}
    fit(config_of(lines, run, declared, knobs={"reading": "split", "aggregator": "upgrad"}, **places))
    return run


def test_a_run_without_a_target_line(alone: Path) -> None:
    report = json.loads((alone / "report.json").read_text(encoding="utf-8"))
    assert report["method"] == "multitask" and "target" not in report
    assert report["selection"] == "source_validation" and report["selected_step"] in (2, 4)
    names = ["瑕疵 type", "wide", "many", "bad"]
    assert list(report["tasks"]) == names == list(report["source"]["tasks"])
    assert all(0 <= scores["mean_class_accuracy"] <= 1 for scores in report["source"]["tasks"].values())
    assert report["source"]["tasks"]["wide"]["mean_absolute_error"] >= 0
    assert 0 < report["sharing"]["parameters"] < 1 < report["sharing"]["flops_ratio"] < 4
    assert any(key.startswith("L ") for key in report["curves"])
    lock = json.loads((alone / "data.lock.json").read_text(encoding="utf-8"))
    assert "target" not in lock and [task["name"] for task in lock["tasks"]] == names
    labels = [row["labels"] for row in lock["source"]["train"]]
    assert {row["wide"] is None for row in labels} == {row["many"] is None for row in labels} == {True, False}
    assert all((row["wide"] is None) != (row["many"] is None) for row in labels)
    page = (alone / "report.html").read_text(encoding="utf-8")
    assert all(f'id="task-{number}"' in page for number in range(4)) and "瑕疵 type" in page


def test_a_run_with_a_target_line_judges_every_task(moved: Path, capsys: pytest.CaptureFixture) -> None:
    report = json.loads((moved / "report.json").read_text(encoding="utf-8"))
    target = report["target"]
    for network in ("source_only", "selected", "oracle"):
        assert list(target[network]["tasks"]) == ["瑕疵 type", "wide", "bad"]
    assert report["selection"] == "information_maximization"
    assert {"L_D_a", "L_D_shared", "accuracy_D_task"} <= report["curves"].keys()
    assert 'id="judged"' in (moved / "report.html").read_text(encoding="utf-8")
    assert target["sentence"] in (moved / "report.html").read_text(encoding="utf-8")
    assert f"{target['selected']['mean']:.1%}" in target["sentence"]
    assert main(["estimate", str(moved)]) == 2 and "one task" in capsys.readouterr().err


def test_evaluate_agrees_with_the_report(
    moved: Path, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["evaluate", str(moved), "--data", str(lines / "target"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = json.loads((moved / "report.json").read_text(encoding="utf-8"))["target"]
    assert found["n"] == wanted["n"] and found["mean"] == wanted["selected"]["mean"]
    assert found["tasks"] == wanted["selected"]["tasks"]
    assert main(["evaluate", str(moved), "--data", str(lines / "target")]) == 0
    assert "macro F1" in capsys.readouterr().out
    shutil.copytree(lines / "target" / "scratches", tmp_path / "some" / "scratches")
    assert main(["evaluate", str(moved), "--data", str(tmp_path / "some"), "--split", "all"]) == 0
    told = capsys.readouterr()
    assert "No image has a label for bad" in told.err and "bad" not in told.out
    inside = ["evaluate", str(moved / "inspector"), "--data", str(lines / "target"), "--split", "all"]
    assert main(inside) == 3 and "folder of a run" in capsys.readouterr().err


def test_evaluate_without_a_target_line_takes_the_sources_test_images(alone: Path, lines: Path, capsys) -> None:
    data = [str(lines / "source"), str(lines / "target")]
    assert main(["evaluate", str(alone), "--data", *data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in ("mean", "tasks")} == json.loads((alone / "report.json").read_text())["source"]


def test_inspect_has_one_set_of_columns_a_task(alone: Path, lines: Path, tmp_path: Path) -> None:
    images = lines / "source" / "scratches"
    (tmp_path / "no.png").write_bytes(b"no image")
    assert main(["inspect", str(alone), str(images), str(tmp_path / "no.png"), "--out", str(tmp_path / "a.csv")]) == 0
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list(images.iterdir())) + 1 and rows[-1]["decision"] == "unreadable"
    assert "class" not in rows[0] and "p" not in rows[0]
    first = rows[0]
    for name, classes in (("wide", ["none", "some", "most"]), ("bad", ["no", "yes"])):
        assert first[f"{name} class"] in classes and 0 <= float(first[f"{name} p"]) <= 1
    assert set(first["many class"].split("; ")) <= {"dark", "long", "none"}
    assert float(first["many p"]) >= 0.5
    unsure = [key for key in first if key.endswith(" decision") and first[key] == "reject-uncertain"]
    assert first["decision"] == ("reject-uncertain" if unsure else "accept")
    assert main(["inspect", str(alone), str(images), "--out", str(tmp_path / "a.parquet")]) == 0
    assert parquet.read_table(tmp_path / "a.parquet").column("wide p").type == "double"


def test_probabilities_and_heat_maps_of_every_task(alone: Path) -> None:
    inspector = artifact.load(alone)
    heads = inspector.specification.heads
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 1), dtype=np.uint8)
    found = inspector.score([images])
    assert found.shape == (3, 7 + 3 + 2 + 2)
    for head, where in zip(heads, inspector.specification.columns.values(), strict=True):
        if head.kind != "multi-label":
            assert np.allclose(found[:, where].sum(1), 1, atol=1e-5)
        assert head.temperature > 0 and 0 <= head.threshold <= 1


def test_an_exported_inspector_says_the_same_of_every_task(alone: Path, lines: Path, tmp_path: Path) -> None:
    images = str(lines / "source" / "scratches")
    assert main(["export", str(alone), "--out", str(tmp_path / "exported"), "--format", "onnx"]) == 0
    tables = []
    for folder in (alone, tmp_path / "exported"):
        assert main(["inspect", str(folder), images, "--out", str(tmp_path / "a.csv")]) == 0
        with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for one, other in zip(*tables, strict=True):
        for name in ("瑕疵 type", "wide", "many", "bad"):
            assert one[f"{name} class"] == other[f"{name} class"]
            assert float(one[f"{name} p"]) == pytest.approx(float(other[f"{name} p"]), abs=1e-4)


def test_the_server_says_the_same_of_every_task(alone: Path, lines: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    from test_serving import PNG, Served, ask

    images = lines / "source" / "scratches"
    assert main(["inspect", str(alone), str(images), "--out", str(tmp_path / "rows.jsonl")]) == 0
    expected = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()][:2]
    served = Served(alone, tmp_path / "log.jsonl")
    try:
        facts = ask(served.port, "GET", "/v1/inspector")[2]
        assert [head["task"] for head in facts["heads"]] == ["瑕疵 type", "wide", "many", "bad"]
        for row in expected:
            content = Path(row["path"]).read_bytes()
            status, _, body = ask(served.port, "POST", "/v1/inspect?pictures=1", content, PNG)
            assert status == 200 and body["heat_map"] is None and list(body["row"]) == list(row)
            for key in row.keys() - {"path", "latency_ms"}:
                near = key.endswith((" p", " margin"))
                assert body["row"][key] == (pytest.approx(row[key], abs=2e-5) if near else row[key]), key
        assert "inspect_decisions_total" in ask(served.port, "GET", "/metrics")[2].decode()
    finally:
        assert served.stop() == 0


def test_as_many_images_are_reviewed_as_asked_for_whatever_the_number_of_tasks() -> None:
    heads = tuple(Head(f"t{number}", "single-label", ("a", "b")) for number in range(4))
    columns = {head.task: slice(2 * number, 2 * number + 2) for number, head in enumerate(heads)}
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 8)) * np.repeat([1.0, 2.0, 0.5, 4.0], 2)
    truth = {head.task: (rng.random(2000) < 0.5).astype(int) for head in heads}
    lines = SimpleNamespace(target=None, labels=lambda part, task: truth[task])
    inspector = SimpleNamespace(specification=Said(heads, columns))
    inspector.calibrated = partial(artifact.Inspector.calibrated, inspector)
    calibrate_tasks(inspector, logits, lines, 0.05)
    below = [
        softmax(logits[:, columns[head.task]] / head.temperature, axis=1).max(1) < head.threshold
        for head in inspector.specification.heads
    ]
    assert np.any(below, axis=0).mean() == pytest.approx(0.05, abs=0.005)
    assert all(each.mean() > 0.005 for each in below)


def test_parity_asks_every_task() -> None:
    heads = (Head("a", "single-label", ("x", "y")), Head("b", "multi-label", ("u", "v")))
    expected = np.array([[0.9, 0.1, 0.9, 0.2], [0.3, 0.7, 0.50005, 0.2], [0.2, 0.8, 0.1, 0.1]])
    found = expected.copy()
    found[1, 2] = 0.49998
    assert compare(expected, found, heads=heads).same_class == 1.0
    found[2, 3] = 0.7
    assert compare(expected, found, heads=heads).same_class == pytest.approx(2 / 3)
    found[0, :2] = found[0, 1::-1]
    assert compare(expected, found, heads=heads).same_class == pytest.approx(1 / 3)


def test_a_killed_run_continues_bit_for_bit(lines: Path, tasks: Path, alone: Path, tmp_path: Path) -> None:
    """Stopped in the middle of the method, whose queues and rates of false detections lie in the checkpoint."""
    config = config_of(lines, tmp_path / "run", tasks)
    with pytest.raises(Interrupted), asked_to_stop("multitask", 1):
        fit(config)
    fit(config, resume=True)
    assert weights(tmp_path / "run") == weights(alone)
    one, other = digests(tmp_path / "run"), digests(alone)
    assert {name for name in one if one[name] != other.get(name)} <= {"report.json", "config.yaml"}


def test_target_labels_change_nothing_but_the_judgement(lines: Path, tasks: Path, moved: Path, tmp_path: Path) -> None:
    """The same run on a target line whose images lie in one folder."""
    flat = tmp_path / "target"
    flat.mkdir()
    for number, image in enumerate(sorted((lines / "target").rglob("*.png"))):
        (flat / f"{number}.png").write_bytes(image.read_bytes())
    run = tmp_path / "moved"
    declared = moved.parent / "some.yaml"
    options = {"source": (lines / "source",), "target": (flat,), "knobs": {"reading": "split", "aggregator": "upgrad"}}
    report = fit(config_of(lines, run, declared, **options))
    before = json.loads((moved / "report.json").read_text(encoding="utf-8"))
    assert "target" not in report and weights(run) == weights(moved)
    for key in ("candidates", "selected_step", "source", "curves", "sharing"):
        assert report[key] == before[key]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "dann"}, "multitask"),
        ({"method": "auto"}, "multitask"),
        ({"method": "oracle"}, "multitask"),
        ({"select": "mixval"}, "select"),
        ({"classes": Path("classes.yaml")}, "classes"),
        ({"target_labels": Path("few.csv")}, "one task alone"),
        ({"normalization": "domain-specific"}, "normalization"),
        ({"tasks": None, "method": "dann"}, "target line"),
    ],
)
def test_options_that_do_not_go_together_are_refused(lines, tasks, tmp_path, options, words) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(config_of(lines, tmp_path / "run", tasks, **options))


def test_declared_tasks_are_trained_upright_unless_asked_otherwise(lines: Path, tasks: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(config_of(lines, tmp_path / "run", tasks), augmentation=None)
    assert resolve(config).augmentation == "upright"
    assert resolve(dataclasses.replace(config, augmentation="plain")).augmentation == "plain"
    single = dataclasses.replace(config, tasks=None, method="dann", knobs={}, target=(lines / "target",))
    assert resolve(single).augmentation == "plain"


def test_tasks_without_labels_are_refused(lines: Path, tmp_path: Path) -> None:
    declared = write(tmp_path / "tasks.yaml", b"a: {classes: [x, y]}")
    with pytest.raises(DataError, match=r"no image|No image"):
        read_lines(config_of(lines, tmp_path / "run", declared))
    declared = write(tmp_path / "tasks.yaml", TASKS.replace("data: target", "data: elsewhere").encode())
    with pytest.raises(DataError, match="elsewhere"):
        read_lines(config_of(lines, tmp_path / "run", declared))


def test_held_out_images_of_one_class_tell_nothing_and_stop_nothing(
    lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Nothing was told apart: what is printed, chosen and drawn does without the figure."""
    for line in ("source", "target"):
        records = [["path", "label", "split"]]
        for path in sorted((lines / line).rglob("*.png")):
            kind, number = path.parent.name, len(records)
            scratched = kind == "scratches"
            part = ("train", "val", "test")[number % 3] if scratched else "train"
            records.append([str(path), kind if scratched or line == "source" else "", part])
        with (tmp_path / f"{line}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(records)
    declared = write(tmp_path / "tasks.yaml", b"type: {classes: [scratches, qualified, patches]}")
    run = tmp_path / "run"
    options = ["--tasks", str(declared)]
    options += ["--source", str(tmp_path / "source.csv"), "--target", str(tmp_path / "target.csv")]
    options += ["--size", "64", "--batch", "8", "--steps", "4", "--pretrain-steps", "2", "--candidates", "2"]
    assert main(["fit", *options, "--out", str(run), "--select", "source_validation", "--no-oracle"]) == 0
    told = capsys.readouterr().out
    assert "how well it does is not known" in told and "what adaptation did is not known" in told
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["candidates"]["source_validation"] == [None, None] and report["selected_step"] == 4  # the last
    assert report["source"]["mean"] is None and report["target"]["selected"]["mean"] is None
    assert "is not known" in (run / "report.html").read_text(encoding="utf-8")
    assert main(["evaluate", str(run), "--data", str(tmp_path / "target.csv")]) == 0
    assert "mean class accuracy -" in capsys.readouterr().out
    assert main(["tasks", "analyse", str(run)]) == 0
    assert "steps to 0.8: not known" in capsys.readouterr().out
