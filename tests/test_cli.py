"""The commands as a user types them: what they print, what they write, how they refuse."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from builders import damage
from lines import tiny_config
from steelshift import cli, judging
from steelshift.adapt import fit
from steelshift.cli import main
from steelshift.estimating import FILE as ESTIMATE
from steelshift.estimating import read_views

FIRST = ["id", "path", "class", "p", "decision", "reason", "error"]


@pytest.fixture(scope="module")
def run(lines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run 一"
    fit(tiny_config(lines, folder))
    return folder


def test_check_names_what_is_wrong(lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "线 B"
    shutil.copytree(lines / "target", target)
    (target / "qualified" / "broken.png").write_text("text")
    first = sorted((lines / "source" / "patches").iterdir())[0]
    shutil.copy(first, target / "patches" / "copy.png")
    assert main(["check", "--source", str(lines / "source"), "--target", str(target), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"]["images"] == 84 and found["target"]["images"] == 85
    assert [entry["path"] for entry in found["target"]["unreadable"]] == [str(target / "qualified" / "broken.png")]
    assert found["duplicates_across"] == [[str(first), str(target / "patches" / "copy.png")]]
    assert any("broken.png" in sentence for sentence in found["findings"])
    assert main(["check", "--source", str(lines / "source"), "--target", str(target)]) == 0
    assert "broken.png" in capsys.readouterr().out


def test_tiles_are_labelled_by_masks_and_are_a_line(
    lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiles.csv"
    arguments = ["tiles", "--images", str(lines / "source"), "--masks", str(lines / "masks" / "source")]
    assert main([*arguments, "--tile", "64", "--stride", "60", "--out", str(out), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["tiles"]
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == sum(counts.values())
    assert set(counts) > {"qualified", "patches"}
    for row in rows[::7]:
        x, y, width, height = map(int, row["crop"].split())
        assert (width, height) == (64, 64) and x + 64 <= 200 and y + 64 <= 200
        mask_path = lines / "masks" / "source" / Path(row["group"])
        if mask_path.exists():
            with Image.open(mask_path) as mask:
                share = (np.asarray(mask)[y : y + 64, x : x + 64] > 127).mean()
            assert share == pytest.approx(float(row["covered"]), abs=1e-4)
            assert (share == 0) == (row["label"] == "qualified")
    assert main(["check", "--source", str(out), "--target", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"]["per_class"] == counts
    assert found["source"]["sizes"] == {"64 x 64": len(rows)}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_inspect_writes_one_row_a_file(
    run: Path, lines: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, path in enumerate(sorted((lines / "target").rglob("*.png"))[:5]):
        shutil.copy(path, images / f"图 {number}.png")
    (images / "text.png").write_text("no image")
    (images / "empty.jpg").touch()
    Image.new("L", (1, 60000)).save(images / "thin.png")
    out = tmp_path / f"rows.{suffix}"
    assert main(["inspect", str(run), str(images), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decisions"]["unreadable"] == 3
    if suffix == "csv":
        rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    else:
        rows = parquet.read_table(out).to_pylist()
    assert list(rows[0])[:7] == FIRST
    assert [Path(row["path"]).name for row in rows] == sorted(path.name for path in images.iterdir())
    for row in rows:
        if Path(row["path"]).name.startswith("图"):
            assert 0 < float(row["p"]) <= 1 and row["decision"] in ("accept", "reject-uncertain")
            assert not row["error"] and row["class"]
        else:
            assert row["decision"] == "unreadable" and row["error"] and not row["class"]


def test_rows_do_not_depend_on_their_neighbours(run: Path, lines: Path, tmp_path: Path) -> None:
    paths = sorted((lines / "target").rglob("*.png"))[:6]
    found = []
    for number, group in enumerate([paths, paths[::-1], paths[2:3]]):
        out = tmp_path / f"{number}.jsonl"
        assert main(["inspect", str(run), *map(str, group), "--out", str(out)]) == 0
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        found.append({row["path"]: row["p"] for row in rows})
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[2][str(paths[2])] == pytest.approx(found[0][str(paths[2])], abs=1e-5)


def test_evaluate_prints_one_object(run: Path, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--data", str(lines / "target"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"n", "accuracy", "mean_class_accuracy", "macro_f1", "per_class", "confusion"} <= set(found)
    assert {"rate", "low", "high", "n"} == set(found["escape_rate"]) == set(found["overkill_rate"])
    assert main(["evaluate", str(run), "--data", str(lines / "source")]) == 3
    assert "--split all" in capsys.readouterr().err


def test_config_file_and_command_line(lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(
        f"source: {lines / 'source'}\ntarget: ['{lines / 'target'}']\nsize: 64\nbatch: 8\nsteps: 2\npretrain_steps: 2\n"
        "candidates: 1\noracle: false\nlr: 1e-3\nmethod: iadsa\nknobs: {pull: 2, negative: nearest}\n"
    )
    arguments = ["fit", "--config", str(config), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--steps", "3", "--knobs.beta", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["oracle"] is None
    stored = (tmp_path / "run" / "config.yaml").read_text()
    for text in ("steps: 3", "size: 64", "pull: 2.0", "negative: nearest", "beta: 2.0", "lr: 0.001"):
        assert text in stored
    assert main([*arguments, "--steps", "4", "--knobs.beta", "2", "--resume"]) == 2
    assert "steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stepz: 3", "stepz"),
        ("knobs: {pul: 1}", "knobs.pul"),
        ("knobs: {pull: strong}", "knobs.pull"),
        ("steps: many", "steps"),
        ("steps: 0", "steps"),
        ("method: magic", "magic"),
        ("- a list", "not a map"),
        ("encoder: no_such_net", "no_such_net"),
        ("normalization: separate", "alexnet"),
    ],
)
def test_wrong_keys_and_values_are_named(
    lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(text + "\n")
    places = ["--source", str(lines / "source"), "--target", str(lines / "target"), "--out", str(tmp_path / "run")]
    assert main(["fit", "--config", str(config), *places]) == 2
    said = capsys.readouterr().err
    assert named in said and "Traceback" not in said


def test_refusals_have_their_codes(lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = str(tmp_path / "nowhere")
    source = str(lines / "source")
    assert main(["check", "--source", nowhere, "--target", source]) == 3
    assert main(["inspect", nowhere, source, "--out", str(tmp_path / "a.csv")]) == 4
    assert main(["report", nowhere]) == 2
    assert main(["frobnicate"]) == 2
    assert main(["synth", "--out", str(lines), "--images", "70"]) == 2
    assert main(["--help"]) == 0 and main(["--version"]) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "steelshift" in said.out


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main(["estimate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_estimate_prints_four_things(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, run)
    assert list(found) == ["verdict", "estimate", "lower_bound", "reason"]
    assert found["verdict"] == "refused" and found["estimate"] is found["lower_bound"] is None  # 17 test images
    assert main(["estimate", str(run)]) == 0
    said = capsys.readouterr().out
    assert found["reason"] in said and "labels" in said
    assert main(["estimate", str(run), "--points", "0"]) == 2


def test_images_to_label_are_listed_and_their_labels_counted(
    run: Path, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = tmp_path / "待标注.csv"
    answer(capsys, run, "--to-label", todo, "--points", "25")
    with todo.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tested = json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["target"]["test"]
    assert 5 < len(rows) < len(tested) and {row["id"] for row in rows} < set(tested)
    for row in rows:
        assert row["label"] == "" and hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest() == row["id"]
        row["label"] = Path(row["path"]).parent.name
    assert main(["estimate", str(run), "--to-label", str(todo)]) == 2 and "exists" in capsys.readouterr().err
    with todo.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert answer(capsys, run, "--labels", todo)["labelled"]["n"] == len(rows)
    rest = tmp_path / "rest.csv"
    assert main(["estimate", str(run), "--labels", str(todo), "--to-label", str(rest)]) == 0
    assert f"--labels {todo} {rest}" in capsys.readouterr().err
    with rest.open(encoding="utf-8", newline="") as file:
        others = list(csv.DictReader(file))
    assert {row["id"] for row in others} == set(tested) - {row["id"] for row in rows}  # fewer than are wanted
    with rest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"label": Path(row["path"]).parent.name} for row in others)
    assert answer(capsys, run, "--labels", todo, rest)["labelled"]["n"] == len(tested)
    assert main(["estimate", str(run), "--labels", str(todo), str(rest), "--to-label", str(tmp_path / "x.csv")]) == 0
    assert "not written" in capsys.readouterr().err and not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("by", ["path", "id"])
def test_a_few_labels_give_an_interval(
    run: Path, lines: Path, tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = set(json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["target"]["test"])
    rows = []
    for path in sorted((lines / "target").rglob("*.png")):
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((name if by == "id" else path, path.parent.name if len(rows) % 20 else "", name in tested))
    labels = tmp_path / "标签.csv"
    with labels.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(by, "label"), *(row[:2] for row in rows)])
    found = answer(capsys, run, "--labels", labels)["labelled"]
    assert found["n"] == sum(tested and bool(label) for _, label, tested in rows) >= 10
    assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1 and found["points"] == 5
    narrow = answer(capsys, run, "--labels", labels, "--points", "1")["labelled"]
    assert narrow["more"] > found["more"] > 0
    assert found["unknown"] == 0 and found["n"] + found["left"] == len(tested)
    text = labels.read_text(encoding="utf-8").splitlines()
    hit = next(number for number, row in enumerate(rows, start=1) if row[2] and row[1])
    labels.write_text("\n".join([*text[:hit], f"{rows[hit - 1][0]},dragon", *text[hit + 1 :]]), encoding="utf-8")
    assert main(["estimate", str(run), "--labels", str(labels), "--json"]) == 0
    said = capsys.readouterr()
    with_unknown = json.loads(said.out)["labelled"]
    assert with_unknown["unknown"] == 1 and with_unknown["n"] == found["n"] and "dragon (1)" in said.err
    labels.write_text("\n".join([text[0], *(f"{row} " for row in text[1:])]), encoding="utf-8")
    assert answer(capsys, run, "--labels", labels)["labelled"] == found  # spaces that a hand leaves
    labels.write_text("\n".join(text), encoding="utf-8")
    if found["n"] == len(tested):
        assert main(["evaluate", str(run), "--data", str(lines / "target"), "--json"]) == 0
        assert found["accuracy"] == pytest.approx(json.loads(capsys.readouterr().out)["accuracy"])
    assert main(["estimate", str(run), "--labels", str(labels)]) == 0
    assert "95 %" in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.08, 0.4])
def test_answers_of_which_no_image_is_labelled_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    names, ids = read_views(run / ESTIMATE)[2], [f"{number:064d}" for number in range(50)]
    answers = np.repeat([0, 1], [round(50 * (1 - share)), round(50 * share)])
    view = SimpleNamespace(target=SimpleNamespace(predicted=answers))
    monkeypatch.setattr(judging, "read_views", lambda path: (view, view, names, ids))
    (tmp_path / "one.csv").write_text("id,label\n" + "".join(f"{name},{names[0]}\n" for name in ids[:20]))
    found = judging.measured(run, [tmp_path / "one.csv"], 5.0)
    assert found["n"] == 20 and found["accuracy"] == 1
    said = capsys.readouterr().err
    assert (f"calls {names[1]}, 40%" in said) == (share == 0.4) and ("No label" in said) == (share == 0.4)


def test_labels_that_cannot_be_used_are_named(
    run: Path, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["target"]["test"][0]
    for text, key in (
        ("name,label\na,patches\n", "path"),
        (f"id,label\n{name},patches\n{name},qualified\n", name),
        (f"id,label\n{name},dragon\n", "none"),
        ("id,label\nabc,patches\n", "none"),
        (f"path,label\n{tmp_path / 'gone.png'},patches\n", "gone.png"),
    ):
        (tmp_path / "labels.csv").write_text(text)
        assert main(["estimate", str(run), "--labels", str(tmp_path / "labels.csv")]) == 3, text
        said = capsys.readouterr().err
        assert key in said and "Traceback" not in said
    assert main(["estimate", str(run), "--labels", str(tmp_path / "nowhere.csv")]) == 3
    assert main(["estimate", str(tmp_path)]) == 2


def test_an_estimate_needs_no_image_and_no_network(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(run / "estimate.npz", tmp_path / "run")
    code = (
        "import sys; from steelshift.cli import main; assert main(sys.argv[1:]) == 0; sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "estimate", tmp_path / "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("seed", range(6))
def test_a_changed_estimate_is_refused(run: Path, tmp_path: Path, seed: int) -> None:
    """Cut short, of other arrays, or with a pickle inside: code 4, and nothing is run."""
    path = tmp_path / "estimate.npz"
    with np.load(run / "estimate.npz") as stored:
        arrays = dict(stored)
    match seed:
        case 0:
            path.write_bytes((run / "estimate.npz").read_bytes()[:-2000])
        case 1:
            del arrays["truth"]
        case 2:
            arrays["target_ids"] = arrays["target_ids"][1:]
        case 3:
            arrays["inspector_target_features"] = np.full_like(arrays["inspector_target_features"], np.nan)
        case 4:
            arrays["truth"] = np.array([Ran(tmp_path / "ran")], dtype=object)
        case 5:
            path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    if seed not in (0, 5):
        np.savez(path, **arrays)
    assert main(["estimate", str(tmp_path)]) == 4
    assert not (tmp_path / "ran").exists()


class Ran:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("seed", range(12))
def test_a_changed_inspector_is_refused(run: Path, lines: Path, tmp_path: Path, seed: int) -> None:
    """A flipped bit, a lost tail or a pickle in the place of any file: code 4, and nothing is run."""
    inspector = tmp_path / "inspector"
    shutil.copytree(run / "inspector", inspector)
    files = sorted(path for path in inspector.rglob("*") if path.is_file())
    rng = np.random.default_rng(seed)
    path = files[seed % len(files)]
    damage(path, seed % 3, rng, tmp_path / "ran")
    assert main(["inspect", str(inspector), str(lines / "target"), "--out", str(tmp_path / "a.csv")]) == 4
    assert not (tmp_path / "a.csv").exists() and not (tmp_path / "ran").exists()


def test_help_explains_options_and_knobs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steelshift", "fit", "--method", "iadsa", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for word in ("--pretrain-steps", "--knobs.pull", "--resume", "(default: 600)"):
        assert word in done.stdout


def test_commands_that_need_no_network_load_no_torch() -> None:
    code = "import sys; from steelshift.cli import main; main(['check', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0


def test_waiting_threads_sleep_unless_the_user_says_how_they_wait(monkeypatch, capsys):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    main(["--version"])
    assert "GOMP_SPINCOUNT" not in os.environ


def test_who_stops_a_command_is_told_how_to_go_on(monkeypatch, capsys):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name, resumes in (("bench", True), ("evaluate", False)):
        monkeypatch.setitem(cli.COMMANDS, name, stopped)
        monkeypatch.setattr(cli.tyro, "cli", lambda command, **_: command())
        assert cli.main([name]) == 130
        assert ("--resume" in capsys.readouterr().err) is resumes
