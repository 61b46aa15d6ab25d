"""Whole runs: what they leave, that labels of the target change nothing, that they continue bit for bit."""

import dataclasses
import hashlib
import json
import math
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from builders import write
from lines import asked_to_stop, tiny_config
from steelshift import adapt, choosing, evidence, memory
from steelshift.adapt import fit, render_again
from steelshift.candidates import Candidates, look_at_candidates
from steelshift.cli import _summary
from steelshift.data.splits import TEST, TRAIN
from steelshift.errors import DataError, Interrupted, RunFailed, UsageError
from steelshift.estimating import estimate_run
from steelshift.inspection import inspector as artifact
from steelshift.judging import evaluate, open_target_labels, verdict
from steelshift.lines import read_lines
from steelshift.methods import METHODS, SourceOnly
from steelshift.nn.encoders import build_encoder
from steelshift.selection import validators
from steelshift.stages import Training
from steelshift.training import checkpoint, loop
from steelshift.training.config import Config, from_mapping, resolve
from steelshift.training.precision import choose

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def finished(lines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run to the end, with the oracle."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    fit(tiny_config(lines, run, oracle=True))
    return run


def digests(run: Path) -> dict[str, str]:
    """sha256 of every file of a run but its cache."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and "cache" not in path.parts)
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def weights(run: Path) -> str:
    return hashlib.sha256((run / "inspector" / "model.safetensors").read_bytes()).hexdigest()


def test_a_run_leaves_what_it_promises(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "env.json", "data.lock.json", "metrics.jsonl", "inspector", "report.html"} <= names
    assert "judging" not in names and "candidates" not in names
    report = json.loads((finished / "report.json").read_text())
    target = report["target"]
    for key in ("source_only", "selected", "last", "peeked", "oracle"):
        assert 0 <= target[key] <= 1
    assert target["peeked"] == max(target["by_step"]) >= target["selected"]
    assert target["last"] == target["by_step"][-1]
    assert report["selection"] == "information_maximization"
    assert report["selected_step"] in report["candidates"]["step"] == [2, 4, 6]
    assert report["seconds"] > 0


def test_a_run_leaves_the_processor_as_it_was(finished: Path) -> None:
    assert float(torch.tensor(1e-45) * 1) > 0


@pytest.mark.parametrize("rule", ["mixval", "dev"])
def test_only_the_judges_that_are_needed_are_asked(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    seen = []
    original = validators.score
    monkeypatch.setattr(validators, "score", lambda judge, what: seen.append(judge) or original(judge, what))
    report = fit(tiny_config(lines, tmp_path / "run", select=rule, method="dann"))
    asked = ["source_validation", "information_maximization", rule]
    assert seen == asked * 3 and list(report["candidates"]) == ["step", *asked]
    scores = report["candidates"]
    kept = [i for i, value in enumerate(scores["source_validation"]) if value >= 0.9 * max(scores["source_validation"])]
    if len(kept) == 3:
        assert report["selected_step"] == scores["step"][int(np.argmax(scores[rule]))]
    assert report["selected_step"] in [scores["step"][i] for i in kept]


def test_a_run_warns_where_source_only_is_the_more_decided(
    finished: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = json.loads((finished / "report.json").read_text())
    decided = report["predicted"]["information_maximization"]
    assert 0 <= decided["selected"] <= math.log(len(report["classes"]))
    assert decided["source_only"] <= decided["selected"] + 0.1 and "Beware" not in report["verdict"]
    monkeypatch.setattr(evidence, "MARGIN", -9)
    assert "Beware" in fit(tiny_config(lines, tmp_path / "run"))["verdict"]


def test_one_pass_gives_features_and_answers(finished: Path) -> None:
    inspector = artifact.load(finished)
    images = 255 * torch.rand(5, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    passes = []
    inspector.encoder.register_forward_hook(lambda *_: passes.append(1))
    found = artifact.answers(inspector, images, batch=2)
    assert len(passes) == 3
    assert np.array_equal(found.logits, artifact.in_batches(inspector.logits, images, batch=2))
    assert np.array_equal(found.features, artifact.in_batches(inspector.encoder, images, batch=2))
    assert np.allclose(found.probabilities.sum(1), 1) and np.array_equal(found.predicted, found.logits.argmax(1))


def test_evaluate_agrees_with_the_report(finished: Path, lines: Path) -> None:
    target = json.loads((finished / "report.json").read_text())["target"]
    scores = evaluate(finished, (lines / "target",), None, "test")
    assert scores["mean_class_accuracy"] == target["selected"]
    assert scores["n"] == target["n"]
    assert scores["confusion"] == target["details"]["selected"]["confusion"]
    assert evaluate(finished, (lines / "target",), None, "all")["n"] == 84


def test_a_run_of_an_older_version_is_resumed_where_only_later_options_are_missing(finished: Path) -> None:
    stored = finished / "config.yaml"
    text = stored.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    older = {key: value for key, value in values.items() if key not in ("tasks", "sharing", "ratios")}
    older["knobs"] = {key: value for key, value in values["knobs"].items() if key != "target_classes"}
    named = ("source", "target", "classes", "target_labels", "cache", "weights", "tasks")
    options = {key: value for key, value in values.items() if key not in named and value is not None}
    places = {key: tuple(map(Path, values[key])) for key in ("source", "target")}
    config = from_mapping(Config, options | places, out=finished)
    try:
        stored.write_text(yaml.safe_dump(older), encoding="utf-8")
        assert fit(config, resume=True)["method"] == "iadsa"
        stored.write_text(yaml.safe_dump(older | {"sharing": "hard"}), encoding="utf-8")
        with pytest.raises(UsageError, match="sharing"):
            fit(config, resume=True)
    finally:
        stored.write_text(text, encoding="utf-8")


def test_classes_that_the_source_lacks_are_told_in_report_and_evaluation(lines: Path, tmp_path: Path) -> None:
    known = [path for path in sorted((lines / "source").iterdir()) if path.is_dir()][:4]
    for path in known:
        shutil.copytree(path, tmp_path / "source" / path.name)
    options = {"method": "source_only", "oracle": False, "target": (lines / "target",), "equal_numbers": False}
    config = dataclasses.replace(tiny_config(lines, tmp_path / "run", **options), source=(tmp_path / "source",))
    target = fit(config)["target"]
    found = evaluate(tmp_path / "run", (lines / "target",), None, "test")
    assert found["open"] == target["details"]["selected"]["open"]
    assert found["n"] == target["n"] > 0 and found["open"]["n_unknown"] == target["unknown"] > 0
    assert "name no class of the source" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_first_step_is_as_the_patent_says(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    first = next(record for record in records if record["phase"] == "iadsa")
    assert first["L_adapt"] == pytest.approx(np.log(2), abs=0.05)
    assert 1.0 < first["L_sep"] < 1.15
    assert first["lambda"] == 1.0 and first["w"] == 1.0
    assert first["omega_a"] == pytest.approx(first["L_adapt"] / (first["L_adapt"] + first["L_sep"]), abs=0.05)


@pytest.mark.parametrize("change", ["permuted", "renamed", "deleted"])
def test_target_labels_change_nothing_but_the_judgement(lines: Path, tmp_path: Path, change: str) -> None:
    """The same place holds the same images under other labels, or under none; the map names five classes of seven."""
    (tmp_path / "a").mkdir()
    names = sorted(path.name for path in (lines / "source").iterdir())[:5]
    classes = write(tmp_path / "classes.yaml", "".join(f"{name}: [{name}]\n" for name in names).encode())
    target = tmp_path / "target"
    reports, estimates = [], []
    for name in ("before", "after"):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(lines / "target", target)
        if name == "after":
            relabel(target, change)
        # config.yaml names the folder of the run no more than that of the target: both runs lie in the same place
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        fit(dataclasses.replace(tiny_config(lines, run, oracle=True), target=(target,), classes=classes))
        reports.append((digests(run), json.loads((run / "report.json").read_text()), page(run)))
        estimates.append(estimate_run(run))
        assert reports[-1][1]["estimate"] == estimates[-1]
    (files, report, html), (files_after, report_after, html_after) = reports
    assert estimates[0] == estimates[1]
    for name in ("report.json", "report.html"):
        del files[name], files_after[name]
    assert files == files_after
    assert any(name.startswith("checkpoints/iadsa") for name in files) and "estimate.npz" in files
    assert report.pop("target", None) != report_after.pop("target", None)
    del report["seconds"], report_after["seconds"]
    assert report == report_after
    assert html == html_after


def test_the_report_of_bridge_shows_what_it_learned_from(lines: Path, tmp_path: Path) -> None:
    fit(tiny_config(lines, tmp_path / "run", method="bridge"))
    with np.load(tmp_path / "run" / "thumbnails.npz") as thumbnails:
        assert thumbnails["source_restyled"].shape == thumbnails["source"].shape
        assert (thumbnails["source_restyled"] != thumbnails["source"]).any()
    assert "Source images, restyled" in page(tmp_path / "run")


def relabel(target: Path, change: str) -> None:
    folders = sorted(path for path in target.iterdir() if path.is_dir())
    if change == "permuted":
        for folder in folders:
            folder.rename(target / f"{folder.name}.moving")
        for folder, other in zip(folders, folders[1:] + folders[:1], strict=True):
            (target / f"{folder.name}.moving").rename(other)
    elif change == "renamed":
        for number, folder in enumerate(folders):
            folder.rename(target / f"缺陷 {number}")
    else:
        for number, path in enumerate(sorted(target.rglob("*.png"), reverse=True)):
            path.rename(target / f"{number}.png")
        for folder in folders:
            folder.rmdir()


def page(run: Path) -> str:
    """The report without its judged section."""
    before, _, rest = (run / "report.html").read_text(encoding="utf-8").partition('<section id="judged"')
    return before + rest.partition("</section>")[2]


def test_labels_are_opened_only_after_the_inspector_is_written(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    opened = []

    def watching(config, read, original=adapt.open_target_labels):
        opened.append((run / "inspector" / "SHA256SUMS").exists() and (run / "estimate.npz").exists())
        return original(config, read)

    monkeypatch.setattr(adapt, "open_target_labels", watching)
    fit(tiny_config(lines, run))
    assert opened == [True]


def test_more_labelled_target_images_fill_more_of_a_batch(lines: Path, tmp_path: Path) -> None:
    known = labelled(lines, tmp_path / "few.csv")
    config = resolve(tiny_config(lines, tmp_path / "run", method="dann", target_labels=tmp_path / "few.csv"))
    fast = choose(config.device, config.precision)
    few = read_lines(config)
    repeated = np.repeat(np.arange(len(known)), 30 * len(few.classes.names) // len(known))
    many = dataclasses.replace(few, few=few.few.take(repeated), few_labels=few.few_labels[repeated])
    assert few.few_per_class <= 5 and many.few_per_class == 30
    for read, share, given in ((few, 1 / 4, None), (many, 2 / 3, None), (many, 1 / 2, 0.5)):
        training = Training(dataclasses.replace(config, few_share=given), fast, read)
        stream = training.method_phase.source
        assert stream.few.batch == round(share * config.batch)
        assert stream.source.batch + stream.few.batch == config.batch == len(stream[0].images)


def train_alone(config: Config, *, resume: bool = True) -> None:
    """S1 to S5, without what `fit` makes of it."""
    config = resolve(config)
    lines = read_lines(config)
    training = Training(config, choose(config.device, config.precision), lines)
    training.pretrain()
    training.adapt(open_target_labels(config, lines) if config.method == "oracle" else None)


RESUMED = [(name, train_alone) for name in METHODS] + [
    ("source_only", fit),
    ("iadsa", fit),
    ("bridge", fit),
    ("oracle", fit),
]


@pytest.mark.parametrize(("method", "work"), RESUMED, ids=[f"{name} {work.__name__}" for name, work in RESUMED])
def test_resumed_equals_uninterrupted(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, work: Callable
) -> None:
    encoder = "resnet18" if method in ("adabn", "tent") else "alexnet"
    batch = 24 if method == "shot" else 8  # an epoch, and a look at the target line, every two steps
    options = {"encoder": encoder, "batch": batch, "cache": tmp_path / "cache"}
    config = tiny_config(lines, tmp_path / "whole", method=method, **options)
    work(config)
    broken = dataclasses.replace(config, out=tmp_path / "broken")
    saves = 0
    original = checkpoint.Checkpoints.save

    class Killed(BaseException):
        pass

    def dying(self, progress, *rest):
        nonlocal saves
        saves += 1
        if saves % 3 == 0:  # sometimes before the save, sometimes after
            if saves % 2:
                original(self, progress, *rest)
            raise Killed
        original(self, progress, *rest)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", dying)
    for _attempt in range(40):
        try:
            work(broken, resume=True)
            break
        except Killed:
            continue
    assert saves > 3
    kept = "inspector" if work is fit else "candidates"
    assert digests(tmp_path / "broken" / kept) == digests(tmp_path / "whole" / kept) != {}
    assert (tmp_path / "broken" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_auto_trains_several_methods_and_keeps_one(lines: Path, tmp_path: Path) -> None:
    knobs = {"methods": ["dann", "mcc"]}
    report = fit(tiny_config(lines, tmp_path / "auto", method="auto", knobs=knobs, cache=tmp_path / "cache"))
    tried = {each["method"]: each for each in report["auto"]}
    assert list(tried) == ["source_only", "dann", "mcc"]
    in_reach = [name for name in tried if not tried[name]["left_out"]]
    assert report["method"] == max(in_reach, key=lambda name: tried[name]["score"])
    assert report["selected_step"] == tried[report["method"]]["step"]
    alone = tiny_config(lines, tmp_path / "alone", method=report["method"], cache=tmp_path / "cache")
    if fit(alone)["selected_step"] == report["selected_step"]:  # alone, it is not held to the best of all methods
        assert weights(tmp_path / "alone") == weights(tmp_path / "auto")
    assert "Several methods were trained" in (tmp_path / "auto" / "report.html").read_text(encoding="utf-8")
    assert fit(tiny_config(lines, tmp_path / "auto", method="auto", knobs=knobs, cache=tmp_path / "cache"), resume=True)
    for wrong in ("none", "oracle"):
        with pytest.raises(UsageError, match=wrong):
            fit(tiny_config(lines, tmp_path / "wrong", method="auto", knobs={"methods": [wrong]}))


def labelled(lines: Path, path: Path, count: int = 2) -> dict[str, str]:
    """A file that labels `count` target images a class by id; and those labels."""
    known = {}
    for folder in sorted((lines / "target").iterdir()):
        for image in sorted(folder.iterdir())[:count]:
            known[hashlib.sha256(image.read_bytes()).hexdigest()] = folder.name
    path.write_text("id,label\n" + "".join(f"{name},{label}\n" for name, label in known.items()))
    return known


def test_the_verdict_claims_no_more_than_the_labels_tell() -> None:
    assert "Adaptation helped" in verdict(0.5, 0.7, True, 100)
    assert "did harm" in verdict(0.7, 0.5, True, 100)
    assert "cannot be told" in verdict(0.5, 0.52, False, 60) and "60" in verdict(0.5, 0.52, False, 60)


@pytest.mark.parametrize("method", ["source_only", "dann"])
def test_a_few_target_labels_train_and_are_never_judged_by(lines: Path, tmp_path: Path, method: str) -> None:
    known = labelled(lines, tmp_path / "few.csv")
    options = {"method": method, "cache": tmp_path / "cache"}
    without = fit(tiny_config(lines, tmp_path / "without", **options))
    report = fit(tiny_config(lines, tmp_path / "with", **options, target_labels=tmp_path / "few.csv"))
    before, after = (json.loads((tmp_path / run / "data.lock.json").read_text()) for run in ("without", "with"))
    moved = set(before["target"]["test"]) & set(known)
    assert moved and set(after["target"]["test"]) == set(before["target"]["test"]) - moved
    assert after["target"]["labelled"] == known
    assert report["target"]["n"] == without["target"]["n"] - len(moved)
    assert report["lines"]["target"]["labelled"] == len(known) == 14
    assert report["lines"]["target"]["labelled_share"] == 0.25
    assert weights(tmp_path / "with") != weights(tmp_path / "without")
    assert report["curves"]["L_task"] != without["curves"].get("L_task")
    # The baseline saw none of them.
    for run in ("with", "without"):
        shutil.rmtree(tmp_path / run / "checkpoints" / "pretrain")
    kept = [digests(tmp_path / run / "checkpoints" / "source_only") for run in ("with", "without")]
    assert kept[0] == kept[1] != {}


def test_methods_without_a_task_loss_move_their_encoder_at_a_rate_of_their_own(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["adda"], "encoder_rate", 0.0)
    fit(tiny_config(lines, tmp_path / "still", method="adda", oracle=False))
    [pretrained] = sorted((tmp_path / "still/checkpoints/pretrain").glob("*.safetensors"))[-1:]
    before = safetensors.torch.load(pretrained.read_bytes())
    after = artifact.load(tmp_path / "still").encoder.state_dict()
    known = {key: before[name] for name in before for key in after if name.endswith(f"shared_encoder.{key}")}
    assert len(known) == len(after) and all(torch.equal(after[key], known[key]) for key in after)


def test_pretrained_layers_learn_at_a_rate_of_their_own_and_a_new_bottleneck_at_that_of_what_is_new(
    lines: Path, tmp_path: Path
) -> None:
    trained = build_encoder("alexnet", 64)
    convolutions = {f"features.{key}": value for key, value in trained.trunk[0].state_dict().items()}
    safetensors.torch.save_file(convolutions, tmp_path / "weights.safetensors")
    kept = {"weights": str(tmp_path / "weights.safetensors"), "encoder_lr": 0.0, "method": "source_only"}
    config = tiny_config(lines, tmp_path / "run", **kept)
    fit(config)
    layers = artifact.load(tmp_path / "run").encoder.trunk
    assert all(torch.allclose(layers[0].state_dict()[key[9:]], value) for key, value in convolutions.items())
    slow, new = loop._groups("shared_encoder", trained, config)
    assert slow["factor"] == 0.0 and new["factor"] == 1.0 and len(slow["params"]) == len(convolutions)
    assert [id(value) for value in new["params"]] == [id(value) for value in trained.trunk[2].parameters()]
    [every] = loop._groups("shared_encoder", trained, tiny_config(lines, tmp_path, encoder_lr=0.5))
    assert every["factor"] == 0.5 and len(every["params"]) == len(convolutions) + 2


def test_images_of_a_labelled_sheet_are_no_test_any_more(lines: Path, tmp_path: Path) -> None:
    images = sorted((lines / "target").rglob("*.png"))
    manifest, few = tmp_path / "line.csv", tmp_path / "few.csv"
    rows = [f"{image},sheet {number // 7}" for number, image in enumerate(images)]
    manifest.write_text("path,group\n" + "\n".join(rows) + "\n")
    config = tiny_config(lines, tmp_path / "run", method="dann", cache=tmp_path / "cache")
    config = dataclasses.replace(config, target=(manifest,))
    before = read_lines(resolve(config)).target
    sheet = before.cache.table.rows[np.flatnonzero(before.side == TEST)[0]].group
    [path] = [row.path for row in before.cache.table.rows if row.group == sheet][:1]
    few.write_text(f"path,label\n{path},{path.parent.name}\n")
    after = read_lines(resolve(dataclasses.replace(config, target_labels=few)))
    sides = {row.group: side for row, side in zip(after.target.cache.table.rows, after.target.side, strict=True)}
    assert sides[sheet] == TRAIN and len(after.few) == 1 and TEST in sides.values()
    assert len(after.unlabelled()) == (after.target.side == TRAIN).sum() - 1


@pytest.mark.parametrize("method", ["shot", "adda", "oracle"])
def test_methods_that_would_ignore_target_labels_refuse_them(lines: Path, tmp_path: Path, method: str) -> None:
    labelled(lines, tmp_path / "few.csv")
    options = {"target_labels": tmp_path / "few.csv", "cache": tmp_path / "cache"}
    with pytest.raises(UsageError, match=method):
        fit(tiny_config(lines, tmp_path / "run", method=method, **options))
    with pytest.raises(UsageError, match="domain-specific"):
        fit(tiny_config(lines, tmp_path / "other", normalization="domain-specific", **options))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_a_method_refuses_is_refused_before_training(lines: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resnet18"):
        fit(tiny_config(lines, tmp_path / "run", method="adabn", cache=tmp_path / "cache"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_refused_run_is_in_nobodys_way(lines: Path, tmp_path: Path) -> None:
    """Whoever mends the option or the folder runs the same command again."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    with pytest.raises(DataError):
        fit(tiny_config(lines, run, source=(tmp_path / "nowhere",), cache=cache))
    with pytest.raises(UsageError, match="resnet18"):
        fit(tiny_config(lines, run, method="adabn", cache=cache))
    assert {path.name for path in run.iterdir()} <= {"cache"}
    fit(tiny_config(lines, run, method="source_only", cache=cache))
    assert (run / "report.json").exists()
    killed = tiny_config(lines, tmp_path / "killed", method="source_only", cache=cache)
    fit(killed)
    shutil.rmtree(killed.out / "checkpoints")
    (killed.out / "report.json").unlink()
    (killed.out / "data.lock.json").write_text("{}")
    before = (killed.out / "config.yaml").read_bytes()
    with pytest.raises(DataError):
        fit(killed, resume=True)  # on other images: what was begun earlier is not taken back
    assert (killed.out / "config.yaml").read_bytes() == before and (killed.out / "data.lock.json").read_text() == "{}"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("mine: 1")
    with pytest.raises(UsageError, match="--resume"):
        fit(tiny_config(lines, mine, cache=cache))
    assert (mine / "config.yaml").read_text() == "mine: 1"


def test_labels_of_other_images_are_refused_or_named(lines: Path, tmp_path: Path, capfd) -> None:
    path = tmp_path / "few.csv"
    config = tiny_config(lines, tmp_path / "run", method="dann", target_labels=path, cache=tmp_path / "cache")
    for content in ("id,label\n" + "0" * 64 + ",scratches\n", "id,label\n", "name\nx\n"):
        path.write_text(content)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        with pytest.raises(DataError, match=r"few\.csv"):
            fit(config)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    labelled(lines, path)
    path.write_text(path.read_text() + "0" * 64 + ",scratches\n")
    fit(config)
    assert "1 labels are of images that are not in the target line" in capfd.readouterr().err


def candidates(*scores: float, source: float = 0.9, share: float = 0.3) -> Candidates:
    of_all = {"source_validation": [source] * len(scores), "bnm": list(scores)}
    return Candidates(list(range(len(scores))), of_all, [share] * len(scores), 0.3, [], [])


def test_auto_takes_the_best_of_all_and_falls_back_on_source_only() -> None:
    plain = candidates(0.5)
    assert choosing.choose_across("bnm", [plain, candidates(0.4, 0.7), candidates(0.6)]) == (1, 1)
    assert choosing.choose_across("bnm", [plain, candidates(0.4, 0.3)]) == (0, 0)
    assert choosing.choose_across("bnm", [plain, candidates(0.7, share=1.0)]) == (0, 0)
    assert choosing.choose_across("bnm", [plain, candidates(0.7, source=0.7)]) == (0, 0)
    better = candidates(0.7, source=0.99, share=1.0)
    assert choosing.choose_across("bnm", [candidates(0.5, source=0.8), better]) == (0, 0)
    assert choosing.choose_across("last", [plain, candidates(0.1, 0.2, source=0.95)]) == (1, 1)


def test_auto_says_which_better_score_a_guard_held_back(lines: Path, tmp_path: Path, monkeypatch) -> None:
    def looked(training: Training, judges: tuple[str, ...]) -> Candidates:
        found = look_at_candidates(training, judges)
        surer = {"source_only": 0.1, "dann": 0.3, "mcc": 0.2}[training.config.method]
        found.scores["information_maximization"][:] = [surer] * len(found.steps)
        found.scores["source_validation"][:] = [0.5 if training.config.method == "dann" else 0.9] * len(found.steps)
        return found

    monkeypatch.setattr(choosing, "look_at_candidates", looked)
    knobs = {"methods": ["dann", "mcc"]}
    report = fit(tiny_config(lines, tmp_path / "auto", method="auto", knobs=knobs, cache=tmp_path / "cache"))
    assert report["method"] == "mcc"
    assert {each["method"]: each["left_out"] for each in report["auto"]} == {
        "source_only": False, "dann": True, "mcc": False
    }  # fmt: skip
    said = "dann scores higher but was left out"
    assert said in _summary(report, tmp_path / "auto")
    assert said in (tmp_path / "auto" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["config.yaml", "data.lock.json", "report.json"])
@pytest.mark.parametrize("content", [b"{a: [", b"a: 1\na: 2\n", b"[1]", b"\xff\xfe", b""])
def test_a_damaged_record_is_refused_and_left(
    lines: Path, tmp_path: Path, finished: Path, name: str, content: bytes
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for kept in ("config.yaml", "data.lock.json", "report.json"):
        shutil.copy(finished / kept, run)
    if name == "data.lock.json":  # a finished run does not look at it
        (run / "report.json").unlink()
    (run / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged"):
        fit(tiny_config(lines, run, oracle=True), resume=True)
    assert (run / name).read_bytes() == content


def test_same_seed_same_bytes_other_seed_other_bytes(lines: Path, tmp_path: Path, finished: Path) -> None:
    fit(tiny_config(lines, tmp_path / "again", oracle=True))
    assert weights(tmp_path / "again") == weights(finished)
    fit(tiny_config(lines, tmp_path / "other", oracle=False, seed=1))
    assert weights(tmp_path / "other") != weights(finished)


def test_resuming_a_finished_run_does_nothing(finished: Path, lines: Path) -> None:
    before = digests(finished)
    fit(tiny_config(lines, finished, oracle=True), resume=True)
    assert digests(finished) == before


def test_runs_from_before_the_share_of_labelled_images_was_one_by_number_go_on(lines: Path, tmp_path: Path) -> None:
    run, labels = tmp_path / "run", tmp_path / "few.csv"
    labelled(lines, labels)
    config = tiny_config(lines, run, method="source_only")
    adapt._open(run, resolve(config), False)
    stored = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) | {"few_share": 0.25}
    for given, now in ((None, None), (labels, 0.25), (labels, None)):
        before = stored | {"target_labels": given and str(given)}
        (run / "config.yaml").write_text(yaml.safe_dump(before), encoding="utf-8")
        resumed = resolve(dataclasses.replace(config, target_labels=given, few_share=now))
        if given and now is None:
            with pytest.raises(UsageError, match=r"few_share = 0\.25"):
                adapt._open(run, resumed, True)
        else:
            assert not adapt._open(run, resumed, True)


def test_resuming_with_another_option_names_it(finished: Path, lines: Path) -> None:
    with pytest.raises(UsageError, match="steps"):
        fit(tiny_config(lines, finished, oracle=True, steps=7), resume=True)
    with pytest.raises(UsageError, match="--resume"):
        fit(tiny_config(lines, finished, oracle=True))


def test_a_folder_of_other_files_is_left_alone(lines: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a run"):
        fit(tiny_config(lines, tmp_path), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_report_is_rendered_again_to_the_same_bytes(finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    render_again(finished)
    assert (finished / "report.html").read_bytes() == before


@pytest.mark.parametrize(("name", "content"), [("thumbnails.npz", b"PK\x03\x04 cut"), ("report.json", b"[1]")])
def test_a_report_of_damaged_numbers_is_refused(tmp_path: Path, finished: Path, name: str, content: bytes) -> None:
    for kept in ("report.json", "thumbnails.npz"):
        shutil.copy(finished / kept, tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        render_again(tmp_path)
    assert caught.value.key == "no_report" and not (tmp_path / "report.html").exists()


def test_being_asked_to_stop_leaves_a_checkpoint_and_resuming_gives_the_same(
    lines: Path, tmp_path: Path, finished: Path
) -> None:
    config = tiny_config(lines, tmp_path / "run", oracle=True)
    with pytest.raises(Interrupted) as stopped, asked_to_stop("iadsa", 2):
        fit(config)
    assert stopped.value.exit_code == 143
    newest = sorted((tmp_path / "run" / "checkpoints" / "iadsa").glob("step-*.json"))[-1]
    assert newest.name == "step-00000003.json"
    fit(config, resume=True)
    assert weights(tmp_path / "run") == weights(finished)


def test_signals_are_noted_and_then_what_they_were() -> None:
    """In a process of its own: that of the tests may run them off its main thread, where no signal is noted."""
    code = """
        import signal
        from steelshift.signals import stop_requests
        before = signal.getsignal(signal.SIGTERM)
        with stop_requests() as asked:
            assert asked == []
            signal.raise_signal(signal.SIGTERM)
            assert asked == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is before
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


class Spoiled(SourceOnly):
    """Source only whose loss is not a number at one step, as often as `times` says."""

    times = 1

    def updates(self, source, target, progress):
        for update in super().updates(source, target, progress):
            if progress == 0.5 and type(self).times > 0:
                type(self).times -= 1
                update = dataclasses.replace(update, loss=update.loss * torch.nan)
            yield update


def test_a_loss_that_is_not_a_number_is_rolled_back(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "dann", Spoiled)
    monkeypatch.setattr(Spoiled, "times", 1)
    fit(tiny_config(lines, tmp_path / "run", method="dann"))
    records = sorted((tmp_path / "run" / "checkpoints" / "dann").glob("*.json"))
    assert json.loads(records[-1].read_text())["lr_scale"] == 0.5
    model = safetensors.torch.load_file(tmp_path / "run" / "inspector" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in model.values())


def test_a_loss_that_stays_no_number_fails_clearly(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "dann", Spoiled)
    monkeypatch.setattr(Spoiled, "times", 100)
    with pytest.raises(RunFailed, match="not finite"):
        fit(tiny_config(lines, tmp_path / "run", method="dann"))
    assert Spoiled.times == 100 - 1 - loop.MOST_ROLLBACKS
    assert not (tmp_path / "run" / "inspector").exists()


def test_too_little_memory_is_said_before_a_step(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    config = tiny_config(lines, tmp_path / "run", oracle=True)
    weighs = (finished / "inspector" / "model.safetensors").stat().st_size
    monkeypatch.setattr(loop, "available_memory", lambda: 3 * weighs)  # gradients, two moments and a copy are four
    with pytest.raises(RunFailed, match=r"Training needs [\d.]+ GB .* are free. Choose a smaller size") as failed:
        fit(config)
    needed, size = (float(failed.value.fields[key]) for key in ("needed", "weights"))
    assert needed == pytest.approx(4 * size, rel=0.06) and size == pytest.approx(weighs / 1e9, rel=0.06)  # two digits
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    monkeypatch.setattr(loop, "available_memory", lambda: None)  # not told: not a reason to refuse
    fit(config, resume=True)
    assert weights(tmp_path / "run") == weights(finished)


def test_memory_that_is_left_is_what_the_system_says() -> None:
    left = memory.available_memory()
    if not Path("/proc/meminfo").exists():
        assert left is None
    else:
        assert 2**20 < left < 2**50


def test_a_disk_that_is_full_leaves_the_old_checkpoint(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    run = tmp_path / "run"
    from steelshift import files

    original = files.os.fsync
    calls = 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 25:
            raise OSError(28, "No space left on device")
        original(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    config = tiny_config(lines, run, oracle=True)
    with pytest.raises(RunFailed, match="No space left"):
        fit(config)
    assert not list(run.rglob("*.tmp"))
    fit(config, resume=True)
    assert weights(run) == weights(finished)


def test_a_rotten_checkpoint_falls_back_to_the_one_before(
    lines: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    config = tiny_config(lines, run, oracle=True)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(choosing, "look_at_candidates", lambda *_: 1 / 0)
        fit(config)
    newest = sorted((run / "checkpoints" / "iadsa").glob("*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    fit(config, resume=True)
    assert weights(run) == weights(finished)


def test_the_inspector_of_a_run_knows_nothing_of_where_it_was_made(finished: Path) -> None:
    for path in (finished / "inspector").rglob("*"):
        if path.is_file():
            assert str(finished.parent).encode() not in path.read_bytes()


def test_kill_minus_nine(lines: Path, tmp_path: Path, finished: Path) -> None:
    """A small version of scripts/prove_resume.py: a few real kills of a real process."""
    command = [sys.executable, "scripts/prove_resume.py", "--kills", "3", "--work", str(tmp_path), "--steps", "8"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 failed" in done.stdout
