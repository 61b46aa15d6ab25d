"""Suites: what they read, what they make ready, that a killed one continues to the same table."""

import csv
import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from builders import write, write_line
from steelshift.bench import running
from steelshift.bench.judges import compare_validators, rank_correlation, render_validators
from steelshift.bench.pairs import prepare
from steelshift.bench.running import COLUMNS, run_suite
from steelshift.bench.sheets import read_checkpoints
from steelshift.bench.suite import Pair, hash_of, load_suite
from steelshift.bench.table import HEADINGS, OVERALL, by_pair, mean_and_interval, render_table
from steelshift.bench.worker import CHOOSING
from steelshift.cli import main
from steelshift.data.table import find_classes, list_places, read_images, read_labels
from steelshift.errors import UsageError
from steelshift.estimating import read_views
from steelshift.files import locked
from steelshift.methods import METHODS
from steelshift.training.config import VALIDATORS

pytestmark = pytest.mark.whole

TINY = {"size": 64, "batch": 8, "steps": 4, "pretrain_steps": 3, "candidates": 2, "encoder": "test_resnet"}
SUITE = {
    "seeds": [0, 1],
    "settings": TINY,
    "pairs": {"drawn 一, mild": {"synthetic": "mild", "images": 70}},
    "methods": {
        "source_only": {"method": "source_only"},
        "dann": {"method": "dann"},
        "两": {"method": "iadsa", "knobs": {"embedding": "none"}},
        "refused": {"method": "dann", "encoder": "alexnet", "normalization": "separate"},
    },
}


def written(folder: Path, **changes) -> Path:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(SUITE | changes, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def not_measured(out: Path) -> list[dict[str, str]]:
    measured = ("_seconds", "_mb", "date")
    return [{key: value for key, value in row.items() if not key.endswith(measured)} for row in rows(out)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    run_suite(written(folder), folder / "out", resume=False, jobs=2)
    return folder / "out"


def test_every_run_is_a_row_in_the_order_of_the_suite(finished: Path) -> None:
    found = rows(finished)
    assert [(row["seed"], row["method"]) for row in found] == [
        (seed, method) for seed in "01" for method in SUITE["methods"]
    ]
    for row in found:
        if row["method"] == "refused":
            assert "alexnet" in row["error"] and row["selected"] == ""
            continue
        assert row["error"] == "" and int(row["n"]) == 14
        by_step = list(map(float, row["by_step"].split()))
        assert float(row["last"]) == by_step[-1] and float(row["peeked"]) == max(by_step)
        assert float(row["selected"]) in by_step
    same = {(row["seed"], row["source_only"], row["oracle"]) for row in found if not row["error"]}
    assert len(same) == 2  # baseline and oracle are those of the seed, whatever the method
    assert len({row["weights_sha"] for row in found if not row["error"]}) == 6
    assert not any(str(finished.parent) in value for row in found for value in row.values())
    assert all(row["selected"] == row["source_only"] for row in found if row["method"] == "source_only")
    assert list((finished / "unfinished" / "drawn 一, mild").iterdir()) == []


def test_a_killed_suite_continues_to_the_same_table(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "steelshift", "bench", written(tmp_path), "--out", out, "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("rows/*/*/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert 0 < len(rows(out)) < 8
    assert main(["bench", str(written(tmp_path)), "--out", str(out)]) == 2
    marker = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    (out / "bench.json").write_text(json.dumps(marker | {"date": "2001-02-03"}), encoding="utf-8")
    subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert {row["date"] for row in rows(out)} == {marker["date"], "2001-02-03"}  # of its beginning, not of the resume
    assert (out / "results.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert not_measured(out) == not_measured(finished)
    before = {path: path.stat().st_mtime_ns for path in out.glob("rows/*/*/*.json")}
    run_suite(written(tmp_path), out, resume=True, jobs=2)
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("rows/*/*/*.json")}


def test_rows_follow_the_suite_as_it_is_now(tmp_path: Path) -> None:
    """Other options, other images: what was made before is neither shown nor continued."""
    out = tmp_path / "out"
    methods = {"one": {"method": "dann"}, "two": {"method": "dann", "knobs": {"weight": 0.5}}}
    tiny = {"seeds": [0], "methods": methods, "pairs": {"x": {"synthetic": "mild", "images": 70}}}
    run_suite(written(tmp_path, **tiny), out, resume=False, jobs=2)
    one, two = rows(out)
    swapped = tiny | {"methods": {"one": methods["two"], "two": methods["two"]}}
    run_suite(written(tmp_path, **swapped), out, resume=True, jobs=2)
    again, same = rows(out)
    assert same == two and again["weights_sha"] == two["weights_sha"] != one["weights_sha"]
    run_suite(
        written(tmp_path, **tiny | {"pairs": {"x": {"synthetic": "high", "images": 70}}}), out, resume=True, jobs=2
    )
    assert rows(out)[0]["data_sha"] != one["data_sha"] and rows(out)[0]["selected"] != ""


def test_unfinished_training_of_other_options_is_not_continued(tmp_path: Path) -> None:
    methods = {"one": {"method": "dann"}}
    tiny = {"seeds": [0], "methods": methods, "pairs": {"x": {"synthetic": "mild", "images": 70}}}
    run_suite(written(tmp_path, **tiny), tmp_path / "wanted", resume=False, jobs=2)
    slow = {"one": {"method": "dann", "steps": 100_000, "save_every": 2, "candidates": 50_000}}
    command = [sys.executable, "-m", "steelshift", "bench", written(tmp_path, **tiny | {"methods": slow})]
    process = subprocess.Popen([*command, "--out", tmp_path / "out", "--jobs", "2"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/unfinished/x/0/*/checkpoints/*/step-*4.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    run_suite(written(tmp_path, **tiny), tmp_path / "out", resume=True, jobs=2)
    assert not_measured(tmp_path / "out") == not_measured(tmp_path / "wanted")


def test_a_folder_of_other_files_or_other_threads_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "x").mkdir(parents=True)
    (tmp_path / "data" / "x" / "mine.png").write_bytes(b"mine")
    with pytest.raises(UsageError) as caught:
        run_suite(written(tmp_path), tmp_path, resume=True, jobs=1)
    assert caught.value.key == "not_a_bench" and (tmp_path / "data" / "x" / "mine.png").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bench.json").write_text('{"threads": 99}')
    with pytest.raises(UsageError) as caught:
        run_suite(written(tmp_path), tmp_path / "out", resume=True, jobs=1)
    assert caught.value.key == "other_threads"


def test_bad_data_is_one_sentence_and_what_was_refused_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = {"source": ["absent"], "target": ["absent"]}
    command = ["bench", str(written(tmp_path, pairs={"p": pair})), "--jobs", "2", "--out", str(tmp_path / "out")]
    assert main(command) == 3
    said = capsys.readouterr().err
    assert "neither a folder nor a manifest" in said and not (tmp_path / "out").exists()
    methods = {"wrong": {"method": "dann", "weights": "absent.safetensors"}, "right": {"method": "source_only"}}
    command[1] = str(written(tmp_path, methods=methods, seeds=[0]))
    assert main(command) == 1  # the reason is told, though another method said something after it
    assert "absent.safetensors" in capsys.readouterr().err.strip().splitlines()[-1]
    assert [row["method"] for row in rows(tmp_path / "out")] == ["right"]
    assert "SIGKILL" in running._reason(tmp_path / "no.log", -9)
    drawn = {"synthetic": "mild", "images": 70, "unknown": ["dragon"]}
    (tmp_path / "new").mkdir()
    with pytest.raises(UsageError) as caught:
        run_suite(written(tmp_path, pairs={"p": drawn}), tmp_path / "new", resume=False, jobs=2)
    assert caught.value.key == "pair_class" and list((tmp_path / "new").iterdir()) == []
    with pytest.raises(UsageError):
        run_suite(written(tmp_path), tmp_path / "newer", resume=False, jobs=2, known=tmp_path / "absent.csv")
    assert not (tmp_path / "newer").exists()
    (tmp_path / "out" / "bench.json").write_text("{")
    assert main([*command, "--resume"]) == 2
    name = next(iter(SUITE["pairs"]))
    row = running.row_path(tmp_path / "other", name, 0, "dann")
    row.parent.mkdir(parents=True)
    row.write_text("{}")
    assert running.read_row(load_suite(written(tmp_path)), tmp_path / "other", name, 0, "dann") is None


def test_a_damaged_table_is_refused_with_its_row(finished: Path, tmp_path: Path) -> None:
    text = (finished / "results.csv").read_text(encoding="utf-8")
    first = rows(finished)[0]
    spoilt = {
        "cut": text[:-40],
        "cut at a comma": text[: text.rindex(",") + 1],
        "a score": text.replace(f",{first['selected']},", ",0.x,"),
        "no number": text.replace(f",{first['selected']},", ",nan,"),
        "a curve": text.replace(first["by_step"], first["by_step"] + " 0.5"),
        "a curve of words": text.replace(first["by_step"], "one two"),
        "a seed": text.replace(",dann,0,", ",dann,zero,"),
    }
    for name, content in spoilt.items():
        assert content != text
        (tmp_path / "results.csv").write_text(content, encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            render_table(tmp_path, "md")
        assert caught.value.key == "sheet_damaged", name
        with pytest.raises(UsageError) as caught:
            run_suite(written(tmp_path), tmp_path / "out", resume=False, jobs=2, known=tmp_path / "results.csv")
        assert caught.value.key == "sheet_damaged" and not (tmp_path / "out").exists(), name
    (tmp_path / "results.csv").write_bytes((finished / "results.csv").read_bytes())
    lines = (finished / "validators.csv").read_text(encoding="utf-8").splitlines(keepends=True)

    def changed(place: int, value: str) -> list[str]:
        cells = next(csv.reader([lines[1]]))
        cells[place] = value
        return [lines[0], ",".join(f'"{cell}"' for cell in cells) + "\n", *lines[2:]]

    fewer = {
        "cut": [*lines[:-1], lines[-1][:-30]],
        "no method": changed(1, ""),
        "no score": changed(4, ""),
        "no number": changed(4, "nan"),
        "a row less": lines[:-1],
    }
    for name, content in fewer.items():
        (tmp_path / "validators.csv").write_text("".join(content), encoding="utf-8")
        if name != "a row less":
            with pytest.raises(UsageError) as caught:
                read_checkpoints(tmp_path)
            assert caught.value.key == "sheet_damaged", name
        with pytest.raises(UsageError) as caught:
            run_suite(written(tmp_path), tmp_path / "out", resume=False, jobs=2, known=tmp_path)
        assert caught.value.key == "sheet_damaged" and not (tmp_path / "out").exists(), name


def test_a_table_with_a_row_twice_or_of_other_images_is_refused(finished: Path, tmp_path: Path) -> None:
    head, first, *others = (finished / "results.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    again = next(csv.DictReader([head, first]))
    spoilt = {
        "sheet_twice": [head, first, *others, first.replace(f",{again['seed']},", f",0{again['seed']},", 1)],
        "sheet_mixed": [head, first.replace(again["data_sha"], "0" * 16), *others],
    }
    for key, lines in spoilt.items():
        (tmp_path / "results.csv").write_text("".join(lines), encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            render_table(tmp_path, "md")
        assert caught.value.key == key
    head, first, *others = (finished / "validators.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "validators.csv").write_text("".join([head, first, first, *others]), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_checkpoints(tmp_path)
    assert caught.value.key == "sheet_twice"


def test_two_suites_do_not_run_in_one_folder(finished: Path, tmp_path: Path) -> None:
    with locked(finished / "bench.json", wait=False) as mine:
        assert mine
        with pytest.raises(UsageError) as caught:
            run_suite(written(tmp_path), finished, resume=True, jobs=2)
    assert caught.value.key == "bench_busy"


def test_the_hash_follows_what_files_say_and_not_where_they_lie(tmp_path: Path) -> None:
    def of(folder: Path, gain: float) -> str:
        folder.mkdir()
        (folder / "mine.yaml").write_text(f"gain: {gain}")
        suite = load_suite(written(folder, pairs={"x": {"synthetic": "mine.yaml"}}))
        return hash_of(suite.config("dann", 0), suite.pairs["x"])

    assert of(tmp_path / "a", 1.1) == of(tmp_path / "b", 1.1) != of(tmp_path / "c", 1.2)


def test_the_hash_of_auto_follows_the_methods_that_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"all": {"method": "auto"}, "one": {"method": "auto", "knobs": {"methods": ["mcc"]}}}
    suite = load_suite(written(tmp_path, methods=methods))
    pair = next(iter(suite.pairs.values()))

    def found() -> list[str]:
        return [hash_of(suite.config(method, 0), pair) for method in methods]

    before = found()
    monkeypatch.setattr(METHODS["dann"], "encoder_rate", 0.5)
    rate = found()
    assert rate[0] != before[0] and rate[1] == before[1]
    own = [("self_weight", float, 0.9)]
    changed = dataclasses.make_dataclass("Knobs", own, bases=(METHODS["bridge"].Knobs,), frozen=True)
    monkeypatch.setattr(METHODS["bridge"], "Knobs", changed)
    assert found()[0] not in (before[0], rate[0]) and found()[1] == before[1]


def test_the_hash_follows_the_rates_of_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load_suite(written(tmp_path, methods={"a": {"method": "adda"}, "d": {"method": "dann"}}))
    pair = next(iter(suite.pairs.values()))
    before = [hash_of(suite.config(method, 0), pair) for method in ("a", "d")]
    monkeypatch.setattr(METHODS["adda"], "encoder_rate", 0.5)
    after = [hash_of(suite.config(method, 0), pair) for method in ("a", "d")]
    assert before[0] != after[0] and before[1] == after[1]
    shared = {hash_of(suite.config(method, 0), pair, CHOOSING) for method in ("a", "d")}
    assert len(shared) == 1  # both start from the same training on the source


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"speed": 1}, "unknown_key"),
        ({"seeds": []}, "suite_lacks"),
        ({"seeds": ["0"]}, "suite_lacks"),
        ({"seeds": [1, 1]}, "suite_lacks"),
        ({"settings": [1]}, "suite_lacks"),
        ({"validators": "yes, please"}, "wrong_value"),
        ({"methods": {"x": 3}}, "suite_lacks"),
        ({"pairs": {"x": "mild"}}, "suite_lacks"),
        ({"pairs": {"x": {"synthetic": "mild", "tile": 64}}}, "unknown_key"),
        ({"pairs": {"../x": {"synthetic": "mild"}}}, "suite_name"),
        ({"pairs": {"x" * 201: {"synthetic": "mild"}}}, "suite_name"),
        ({"methods": {"dann\0": {"method": "dann"}}}, "suite_name"),
        ({"methods": {1: {"method": "dann"}, "1": {"method": "mcc"}}}, "config_unreadable"),
        ({"pairs": {"x": {"source": ["a"], "target": ["b"], "masks": "m"}}}, "pair_masks"),
        ({"pairs": {"x": {}}}, "pair_kind"),
        ({"pairs": {"x": {"synthetic": "mild", "source": ["a"], "target": ["b"]}}}, "pair_kind"),
        ({"pairs": {"x": {"synthetic": "mild", "sise": 3}}}, "unknown_key"),
        ({"pairs": {"x": {"synthetic": "mild", "flipped": 2}}}, "option_range"),
        ({"pairs": {"x": {"photographed": "$NOT_SET_ANYWHERE/NEU"}}}, "suite_variable"),
        ({"methods": {"x": {"method": "nonesuch"}}}, "unknown_method"),
        ({"methods": {"x": {"seed": 3}}}, "suite_gives"),
        ({"methods": {"x": {"knobs": 5}}}, "wrong_value"),
        ({"methods": {"x": {"method": ["dann"]}}}, "wrong_value"),
        ({"methods": {"x": {"knobs": {"lambda": 3}}}}, "unknown_key"),
    ],
)
def test_a_suite_that_is_wrong_is_refused_before_anything_runs(tmp_path: Path, changes: dict, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_suite(written(tmp_path, **changes), tmp_path / "out", resume=False, jobs=1)
    assert caught.value.key == key and not (tmp_path / "out").exists()


def test_paths_follow_the_suite_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILL", str(tmp_path / "厂"))
    (tmp_path / "c.yaml").write_text("a: [one]\nb: [two]")
    (tmp_path / "mine.yaml").write_text("gain: 1.1")
    pairs = {"x": {"source": ["$MILL/a"], "target": ["b"], "classes": "c.yaml"}, "y": {"synthetic": "mine.yaml"}}
    suite = load_suite(written(tmp_path, pairs=pairs))
    assert suite.pairs["x"].source == (tmp_path / "厂" / "a",) and suite.pairs["x"].target == (tmp_path / "b",)
    assert load_suite(written(tmp_path, **suite.values())) == suite
    assert suite.pairs["x"].classes == tmp_path / "c.yaml" and suite.pairs["y"].synthetic == str(tmp_path / "mine.yaml")


def test_a_line_photographed_anew_is_two_disjoint_halves(tmp_path: Path) -> None:
    line = write_line(tmp_path / "line", {"a": 10, "b": 8})
    ready = prepare("x", Pair(photographed=line, shift="middle"), tmp_path / "made")
    source, target = list_places(ready.source), list_places(ready.target)
    assert {place.label for place in source} == {place.label for place in target} == {"a", "b"}
    assert len(source) == len(target) == 9
    originals = {path.stem: path for path in line.rglob("*.png")}
    assert all(place.path.resolve() in originals.values() for place in source)
    with Image.open(target[0].path) as picture:
        assert picture.size == (32, 24) and picture.mode == "L"
    assert prepare("x", Pair(photographed=line, shift="middle"), tmp_path / "made") == ready


def test_flipped_labels_are_as_many_as_asked_for_and_the_target_keeps_its_own(tmp_path: Path) -> None:
    line = write_line(tmp_path / "line", {"a": 20, "b": 20, "c": 10})
    pair = Pair(source=(line,), target=(line,), flipped=0.2)
    ready = prepare("x", pair, tmp_path / "made")
    classes = find_classes([line])
    truth, flipped = (read_labels(place, classes, read_images(place)) for place in (pair.source, ready.source))
    assert (truth != flipped).sum() == 10 and ready.target == (line,)


def test_tiles_of_both_lines_are_labelled_by_their_masks(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_line(tmp_path / name, {"crack": 2, "Free": 2})
        for path in (tmp_path / name / "crack").iterdir():
            mask = np.zeros((24, 32), np.uint8)
            mask[:8, :8] = 255
            goal = tmp_path / "masks" / name / "crack" / path.name
            goal.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(goal)
    pair = Pair(source=(tmp_path / "one",), target=(tmp_path / "two",), tile=12, masks=tmp_path / "masks")
    ready = prepare("x", pair, tmp_path / "made")
    labels = [place.label for place in list_places(ready.source)]
    assert len(labels) == 24 and labels.count("crack") == 2


def test_the_table_says_mean_interval_gap_and_harm() -> None:
    row = {"pair": "p", "method": "m", "seed": "0", "error": "", "last": 0.7, "peeked": 0.8, "oracle": 0.9}
    row |= {"train_seconds": 3.0, "steps": "5 10", "source_only": 0.5}
    made = [row | {"selected": 0.6, "by_step": "0.7 0.8"}, row | {"selected": 0.4, "by_step": "0.7 0.74"}]
    [shown] = by_pair([*made, row | {"error": "not_finite"}], "m")
    assert (shown["seeds"], shown["failed"]) == ("2", "1")
    assert shown["selected"] == "0.500 ± 1.271"  # t(.975, 1) = 12.706 x sd .14142 / sqrt 2
    assert shown["gain"] == "+0.000 ± 1.271" and shown["worst"] == "0.400"
    assert shown["gap closed"] == "0 %" and shown["harmed"] == "1 of 2" and shown["steps"] == "10"
    [shown] = by_pair([row | {"selected": 0.6, "by_step": "0.7 0.8", "oracle": 0.505}], "m")
    assert shown["gap closed"] == ""  # of half a point there is no share
    assert mean_and_interval([0.25]) == "0.250" and mean_and_interval([]) == ""


def test_the_table_comes_in_three_forms(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-table", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert "H-score" not in shown
    assert shown.count("\n| ") == 9 and "两" in shown and "n/a" in shown  # and the first heading
    assert "refused (0)" in shown and "2 of 2 cells" in shown
    *_, last = shown.splitlines()
    made = rows(finished)[0]
    assert last.startswith("8 rows: ")
    assert all(made[key] and made[key] in last for key in ("date", "processor", "torch"))
    one = list(csv.DictReader(render_table(finished, "csv").splitlines()))
    assert len(one) == 8 and set(one[0]) == {*HEADINGS, *OVERALL}
    assert [row["method"] for row in one if not row["pair"]][-1] == "refused"
    assert render_table(finished, "html").count("<tr>") == 10
    assert render_table(finished / "results.csv", "md") == shown
    assert main(["bench-table", str(finished / "rows")]) == main(["bench-table", str(finished / "bench.json")]) == 2


def test_every_checkpoint_is_a_row_with_the_score_of_every_judge(finished: Path) -> None:
    found = read_checkpoints(finished)
    for row in rows(finished):
        of_run = [each for each in found if (each["method"], each["seed"]) == (row["method"], row["seed"])]
        assert [int(each["step"]) for each in of_run] == list(map(int, row["steps"].split()))
        assert [each["mean_class_accuracy"] for each in of_run] == list(map(float, row["by_step"].split()))
    assert len(found) == 10 and set(VALIDATORS) < set(found[0])
    assert all(isinstance(each[judge], float) for each in found for judge in VALIDATORS)
    assert all(1 / 7 <= each["largest_share"] <= 1 and 1 / 7 <= each["baseline_share"] <= 1 for each in found)


def test_judges_are_not_asked_where_the_suite_says_no(finished: Path, tmp_path: Path) -> None:
    methods = {"dann": {"method": "dann", "select": "bnm"}}
    run_suite(written(tmp_path, seeds=[0], methods=methods, validators=False), tmp_path / "out", resume=False, jobs=2)
    asked = read_checkpoints(tmp_path / "out")[0]
    assert {judge for judge in VALIDATORS if asked[judge] is not None} == {
        "source_validation", "information_maximization", "bnm",
    }  # fmt: skip
    with_all = next(row for row in read_checkpoints(finished) if (row["method"], row["seed"]) == ("dann", "0"))
    assert all(asked[key] == with_all[key] for key in asked if asked[key] is not None)


def test_arrays_are_kept_where_the_suite_asks_and_give_the_truth_its_estimate(tmp_path: Path) -> None:
    methods = {name: SUITE["methods"][name] for name in ("source_only", "两")}
    pairs = {"p": {"synthetic": "mild", "images": 175}}
    suite = written(tmp_path, seeds=[0], pairs=pairs, methods=methods, validators=False, arrays=True)
    run_suite(suite, tmp_path / "out", resume=False, jobs=2)
    for row in rows(tmp_path / "out"):
        inspector, baseline, classes, ids = read_views(tmp_path / "out" / "arrays" / "p" / "0" / f"{row['method']}.npz")
        assert len(classes) == 7 and len(ids) == len(set(ids)) == int(row["n"]) == len(inspector.target.logits)
        same = np.array_equal(inspector.target.logits, baseline.target.logits)
        assert same == (row["method"] == "source_only")
        line = tmp_path / "out" / "data"
        of_id = {
            hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name for path in line.rglob("target/*/*.png")
        }
        right = np.array([classes[k] for k in inspector.target.predicted]) == [of_id[name] for name in ids]
        assert right.mean() == pytest.approx(float(row["selected_accuracy"]), abs=1e-4)
    command = [sys.executable, Path(__file__).parents[1] / "scripts" / "calibrate_estimate.py", tmp_path / "out"]
    cells = tmp_path / "cells.csv"
    done = subprocess.run([*command, "--cells", cells], capture_output=True, text=True, check=True)
    assert "| p | 2 |" in done.stdout and "median slack" in done.stdout
    found = list(csv.DictReader(cells.read_text(encoding="utf-8").splitlines()))
    assert [row["method"] for row in found] == ["source_only", "两"]
    assert all(0 <= float(row["bound"]) <= 1 and 0 <= float(row["estimate"]) <= 1 for row in found)
    assert subprocess.run([*command, "--pairs", "q"], capture_output=True).returncode == 2


def test_rows_of_an_earlier_table_are_taken_over(finished: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.csv"
    shutil.copy(finished / "results.csv", known)
    shutil.copy(finished / "validators.csv", tmp_path / "known-validators.csv")
    run_suite(written(tmp_path), tmp_path / "out", resume=False, jobs=2, known=known)
    for name in ("results.csv", "validators.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (finished / name).read_bytes()
    assert not (tmp_path / "out" / "data").exists()  # nothing was made
    changed = {"source_only": {"method": "source_only", "steps": 5}, "dann": {"method": "dann"}}
    suite = load_suite(written(tmp_path, methods=changed))
    running._take_over(suite, tmp_path / "other", known, 1)
    pair = next(iter(suite.pairs))
    assert running.missing(suite, tmp_path / "other", pair, 0) == ["source_only"]
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    for wrong in ("wrong.csv", "absent.csv"):
        with pytest.raises(UsageError, match="csv"):
            running._take_over(suite, tmp_path / "other", tmp_path / wrong, 1)
    running._take_over(suite, tmp_path / "third", known, 7)
    assert running.missing(suite, tmp_path / "third", pair, 0) == ["source_only", "dann"]


def test_a_few_target_labels_come_from_training_images(tmp_path: Path) -> None:
    methods = {"none": {"method": "source_only"}, "two": {"method": "source_only", "few": 2}}
    methods["alone"] = methods["two"] | {"few_share": 1}
    methods["refused"] = methods["two"] | {"encoder": "resnet18", "normalization": "domain-specific"}
    suite = written(tmp_path, seeds=[0], methods=methods, validators=False)
    run_suite(suite, tmp_path / "out", resume=False, jobs=2)
    none, two, alone, refused = rows(tmp_path / "out")
    assert "domain-specific" in refused["error"] and not two["error"]
    assert two["n"] == none["n"] and two["source_only"] == none["source_only"] and two["oracle"] == none["oracle"]
    for key in ("weights_sha", "config_sha"):
        assert len({none[key], two[key], alone[key]}) == 3
    assert alone["n"] == none["n"] and alone["source_only"] == none["source_only"]
    with pytest.raises(UsageError, match="few"):
        load_suite(written(tmp_path, methods={"x": {"method": "dann", "few": -1}}))


def test_what_few_labels_fill_of_a_batch_grows_with_their_number(tmp_path: Path) -> None:
    methods = {f"{n} {share}": {"few": n, "few_share": share} for n in (5, 45) for share in (None, 0.25, 0.75)}
    suite = load_suite(written(tmp_path, seeds=[0], methods=methods))
    shares = {name: suite.config(name, 0).share_of_few(suite.few(name)) for name in methods}
    expected = {5: 0.25, 45: 0.75}
    assert shares == {name: each["few_share"] or expected[each["few"]] for name, each in methods.items()}
    assert suite.config("5 None", 0).share_of_few(0.4) == 0.25
    assert suite.config("5 None", 0).share_of_few(15) == 0.5
    hashes = {method: value for (_, _, method), value in suite.hashes.items()}
    assert hashes["5 None"] == hashes["5 0.25"] != hashes["5 0.75"]
    assert len({hashes["45 None"], hashes["45 0.75"], hashes["45 0.25"]}) == 3


def test_halves_of_a_photographed_line_keep_their_groups(tmp_path: Path) -> None:
    line = write_line(tmp_path / "line", {"x": 12, "y": 12})
    paths = sorted(line.rglob("*.png"))
    records = [f"{path},{path.parent.name},sheet {number // 3}" for number, path in enumerate(paths)]
    manifest = write(tmp_path / "all.csv", "\n".join(["path,label,group", *records]).encode())
    ready = prepare("x", Pair(photographed=manifest, shift="mild"), tmp_path / "made")
    groups = [{place.group for place in list_places(places)} for places in (ready.source, ready.target)]
    assert len(groups[0] | groups[1]) == 8 and not groups[0] & groups[1] and None not in groups[1]


def test_a_target_is_closed_by_the_class_map_in_comparisons_alone(tmp_path: Path) -> None:
    write_line(tmp_path / "a", {"x": 3, "y": 3, "z": 3})
    write_line(tmp_path / "b", {"x": 2, "v": 2, "other": 5})
    write(tmp_path / "c.yaml", b"x: [x]\ny: [y, v]\n")
    pair = {"source": ["a"], "target": ["b"], "classes": "c.yaml"}
    loaded = load_suite(written(tmp_path, pairs={"p": pair}))
    for _ in range(2):  # made, then found
        ready = prepare("p", loaded.pairs["p"], tmp_path / "data")
        assert sorted(place.label for place in list_places(ready.target)) == ["v", "v", "x", "x"]


def test_lines_may_lack_classes_of_each_other(tmp_path: Path) -> None:
    pairs = {
        "partial": {"synthetic": "mild", "images": 70, "absent": ["crazing", "pitting"]},
        "open": {"synthetic": "mild", "images": 70, "unknown": ["crazing", "patches", "pitting"]},
    }
    suite = written(tmp_path, pairs=pairs, seeds=[0], methods={"plain": {"method": "source_only"}}, validators=False)
    run_suite(suite, tmp_path / "out", resume=False, jobs=2)
    found = {row["pair"]: row for row in rows(tmp_path / "out")}
    assert found["partial"]["selected_h_score"] == "" and 0 <= float(found["open"]["selected_h_score"]) <= 1
    assert found["open"]["selected_h_score"] == found["open"]["source_only_h_score"]
    assert "| H-score |" in render_table(tmp_path / "out", "md")
    loaded = load_suite(suite)
    ready = {name: prepare(name, loaded.pairs[name], tmp_path / "out" / "data") for name in pairs}
    kinds = {(name, line): {place.label for place in list_places(getattr(ready[name], line))}
             for name in pairs for line in ("source", "target")}  # fmt: skip
    assert kinds["partial", "source"] - kinds["partial", "target"] == {"crazing", "pitting"}
    assert kinds["open", "target"] - kinds["open", "source"] == {"crazing", "patches", "pitting"}
    wrong = written(tmp_path, pairs={"x": pairs["open"] | {"unknown": ["rust"]}})
    with pytest.raises(UsageError, match=r"rust.*crazing"):
        run_suite(wrong, tmp_path / "other", resume=False, jobs=1)
    with pytest.raises(UsageError, match="absent"):
        load_suite(written(tmp_path, pairs={"x": {"source": ["a"], "target": ["b"], "absent": ["crazing"]}}))


def test_judges_are_compared_with_the_truth_after_the_fact() -> None:
    truth = [0.5, 0.7, 0.9, 0.6]
    guard = {"largest_share": 0.4, "baseline_share": 0.4, "source_validation": 0.9}
    checkpoints = [
        {"pair": "p", "method": method, "seed": seed, "step": step, "mean_class_accuracy": value + better, **guard}
        | {"knowing": value + better, "contrary": -value, "silent": None}
        for method, better in (("a", 0.0), ("b", 0.02), ("c", 0.05))
        for seed in ("0", "1")
        for step, value in enumerate(truth)
    ]
    found = {row["validator"]: row for row in compare_validators(checkpoints)}
    assert list(found) == ["last", "source_validation", "knowing", "contrary"]
    assert found["knowing"] | {"pair": "p", "runs": "6"} == found["knowing"]
    assert found["knowing"]["within"].startswith("+1.000") and found["contrary"]["within"].startswith("-1.000")
    assert found["knowing"]["across"].startswith("+1.000") and found["contrary"]["across"] == ""
    assert found["knowing"]["worst regret"] == "0.000" and found["contrary"]["worst regret"] == "0.400"
    assert found["last"]["within"] == "" and found["last"]["regret"].startswith("0.300")
    collapsed = [row | {"largest_share": 1.0 if row["mean_class_accuracy"] > 0.85 else 0.4} for row in checkpoints]
    guarded = next(row for row in compare_validators(collapsed) if row["validator"] == "knowing")
    assert guarded["worst regret"] == "0.200"
    two = checkpoints + [row | {"pair": "q"} for row in checkpoints]
    assert [row["pair"] for row in compare_validators(two)][::4] == ["p", "q", "all"]
    assert compare_validators([]) == []
    assert rank_correlation([1, 2], [1, 2]) is None and rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_the_table_of_judges_comes_by_command(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench-table", str(finished), "--validators"]) == 0
    assert capsys.readouterr().out == render_validators(finished, "md")
    shutil.copy(finished / "validators.csv", tmp_path / "kept-validators.csv")
    assert read_checkpoints(tmp_path / "kept.csv") == read_checkpoints(finished)
    assert read_checkpoints(finished / "results.csv") == read_checkpoints(finished)
    shown = list(csv.DictReader(render_validators(finished, "csv").splitlines()))
    assert [row["validator"] for row in shown] == ["last", *VALIDATORS]
    assert main(["bench-table", str(finished / "rows"), "--validators"]) == 2
    assert "validators.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "suites").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_suite_of_the_project_can_be_read(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELSHIFT_DATA", str(tmp_path))
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name in ("neu-xsdd", "mt-qualified", "mt-lighting"):
        (folder / f"{name}.yaml").write_text("a: [one]\nb: [two]")
    assert load_suite(path).methods
