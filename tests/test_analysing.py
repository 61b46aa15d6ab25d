"""`steelshift tasks analyse` on two tiny runs that share in different ways."""

import json
import shutil

import pytest
import yaml

from steelshift import analysing, relating
from steelshift.cli import main
from steelshift.data.camera import Shift
from steelshift.data.synthetic import CLASSES, EXTENTS, write_lines

TASKS = {
    "缺陷 type": {"classes": list(CLASSES), "material": "steel", "mechanism": "any"},
    "extent": {"kind": "ordinal", "classes": list(EXTENTS), "column": "extent", "material": "steel"},
    "faults": {"kind": "multi-label", "classes": list(CLASSES[1:]), "material": "copper"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the finished runs `progressive` and `hard`."""
    folder = tmp_path_factory.mktemp("analyse")
    write_lines(folder / "lines", shift=Shift(), images=63, seed=0)
    (folder / "tasks.yaml").write_text(yaml.safe_dump(TASKS, sort_keys=False, allow_unicode=True), encoding="utf-8")
    common = ["--tasks", str(folder / "tasks.yaml"), "--source", str(folder / "lines/source.csv"), "--size", "64"]
    short = ["--batch", "8", "--steps", "3", "--pretrain-steps", "2", "--candidates", "1", "--method", "multitask"]
    for sharing in ("progressive", "hard"):
        assert main(["fit", *common, *short, "--sharing", sharing, "--out", str(folder / sharing)]) == 0
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_analysed_into_numbers_and_pictures(runs, capsys, monkeypatch):
    monkeypatch.setattr(relating, "ON_SURFACE", 4)
    run = runs / "progressive"
    before = files(run)
    assert main(["tasks", "analyse", str(run), "--against", str(runs / "hard"), "--score", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    after = files(run)
    assert json.loads(after["tasks/analysis.json"]) == found
    assert {name: content for name, content in after.items() if not name.startswith("tasks/")} == before
    assert found["tasks"] == list(TASKS)
    assert set(found["relatedness"]) == {"maps", "gradient", "alignment"}
    assert found["groups"]["physical"]["groups"] == [["缺陷 type"], ["extent"], ["faults"]]
    assert found["conflict"]["pairs"] == found["against"]["conflict"]["pairs"] > 0
    ours, other = found["conflict"]["difference"], found["against"]["conflict"]["difference"]
    assert found["against"]["difference_reduced_by"] == pytest.approx(1 - ours / other)
    assert set(found["separability"]) == {"缺陷 type", "extent"}
    assert 0 < found["sharing"]["configured"]["channels"] < 1 and 0 < found["sharing"]["read"] < 1
    assert found["convergence"]["steps"] == 3 and found["task_distance"] > 0
    assert 0 <= found["task_probe"] <= 1
    pictures = [name for name in after if name.endswith(".svg")]
    assert sorted(pictures) == [
        "tasks/map.svg", *(f"tasks/relatedness-{name}.svg" for name in ("alignment", "gradient", "maps")),
        "tasks/surfaces.svg",
    ]  # fmt: skip
    assert "缺陷 type" in after["tasks/relatedness-maps.svg"].decode()


def test_what_cannot_be_analysed_is_refused(runs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["tasks", "analyse", str(tmp_path / "empty")]) == 2
    assert main(["tasks", "analyse", str(runs / "hard"), "--against", str(tmp_path / "empty")]) == 2
    assert main(["tasks", "analyse", str(runs / "hard"), "--score", "2"]) == 2
    (runs / "fewer.yaml").write_text(
        yaml.safe_dump(TASKS | {"faults": TASKS["faults"] | {"classes": list(CLASSES[1:4])}}, allow_unicode=True,
                       sort_keys=False), encoding="utf-8")  # fmt: skip
    short = ["--source", str(runs / "lines/source.csv"), "--batch", "8", "--steps", "1", "--pretrain-steps", "0"]
    for name, tasks, size in (("larger", "tasks", "72"), ("fewer", "fewer", "64")):
        given = ["--tasks", str(runs / f"{tasks}.yaml"), "--size", size, "--out", str(runs / name)]
        assert main(["fit", *given, *short, "--candidates", "1", "--method", "multitask"]) == 0
        assert main(["tasks", "analyse", str(runs / "hard"), "--against", str(runs / name)]) == 2
    shutil.copytree(runs / "hard", runs / "stopped")
    (runs / "stopped/report.json").unlink()
    assert main(["tasks", "analyse", str(runs / "stopped")]) == 2 and "no finished run" in capsys.readouterr().err
    assert main(["tasks", "analyse", str(runs / "hard/inspector")]) in (2, 3)
    assert "--split" not in capsys.readouterr().err
    assert not (runs / "hard/tasks").exists()
    assert main(["tasks", "analyse", str(tmp_path / "empty")]) == 2
    assert "fit --tasks" in capsys.readouterr().err


def test_images_are_read_with_the_bits_of_the_run(runs, monkeypatch):
    run = runs / "twelve bits"
    given = ["--tasks", str(runs / "tasks.yaml"), "--source", str(runs / "lines/source.csv"), "--bit-depth", "12"]
    short = ["--size", "64", "--batch", "8", "--steps", "1", "--pretrain-steps", "0", "--candidates", "1"]
    assert main(["fit", *given, *short, "--method", "multitask", "--out", str(run)]) == 0
    read, asked = analysing.cache_pixels, []
    monkeypatch.setattr(analysing, "cache_pixels", lambda *a, **k: asked.append(k["bit_depth"]) or read(*a, **k))
    assert main(["tasks", "analyse", str(run)]) == 0
    assert asked == [12, 12]
