"""`steelshift tasks group` on tiny lines."""

import json

import pytest
import yaml

from steelshift.cli import main
from steelshift.data.camera import Shift
from steelshift.data.synthetic import CLASSES, EXTENTS, write_lines
from steelshift.data.tasks import load_tasks
from steelshift.errors import Interrupted

TASKS = {
    "缺陷 type": {"classes": list(CLASSES), "material": "steel", "mechanism": "any"},
    "extent": {"kind": "ordinal", "classes": list(EXTENTS), "column": "extent", "material": "steel"},  # of no mechanism
    "quadrant": {
        "classes": ["upper left", "upper right", "lower left", "lower right"],
        "column": "quadrant",
        "material": "steel",
        "mechanism": "any",
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Lines, and tasks declared in tasks.yaml beside them."""
    folder = tmp_path_factory.mktemp("tasks")
    write_lines(folder / "lines", shift=Shift(), images=42, seed=0)
    (folder / "tasks.yaml").write_text(yaml.safe_dump(TASKS, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return folder


def group(place, out, *options, tasks="tasks.yaml"):
    given = ["--tasks", str(place / tasks), "--data", str(place / "lines/source.csv"), "--out", str(out)]
    return main(["tasks", "group", *given, "--size", "64", "--steps", "3", *options])


@pytest.mark.parametrize("measure", ["gradient", "alignment"])
def test_groups_are_written_with_numbers_and_a_picture(place, tmp_path, capsys, measure):
    out = tmp_path / "groups 组.yaml"
    assert group(place, out, "--measure", measure, "--by", "affinity", "--groups", "2", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert yaml.safe_load(out.read_text(encoding="utf-8")) == record
    names = list(TASKS)
    for found in record["compared"].values():
        assert sorted(name for group in found["groups"] for name in group) == sorted(names)
    assert record["compared"]["physical"]["groups"] == [["缺陷 type", "quadrant"], ["extent"]]
    assert record["groups"] == record["compared"]["affinity"]["groups"] and len(record["groups"]) == 2
    assert sorted(map(len, record["compared"]["random"]["groups"])) == [1, 2]
    table = record["relatedness"]
    assert all(table[name][name] == 1 and table[name][other] == table[other][name] for name in names for other in names)
    assert record["compared"]["physical"]["within"] == pytest.approx(table["缺陷 type"]["quadrant"])
    picture = out.with_suffix(".svg").read_text(encoding="utf-8")
    assert all(word in picture for word in ("缺陷 type", "quadrant", "affinity"))
    declared = {task.name: task for task in load_tasks(place / "tasks.yaml")}
    for number, members in enumerate(record["groups"], start=1):
        of_group = load_tasks(tmp_path / f"groups 组-{number}.yaml")
        assert [task.name for task in of_group] == members
        assert all(task == declared[task.name] for task in of_group)


def test_the_same_seed_measures_the_same_and_people_can_read_it(place, tmp_path, capsys):
    for name, by in (("a", "physical"), ("b", "random")):
        assert group(place, tmp_path / f"{name}.yaml", "--by", by) == 0
    first, second = (yaml.safe_load((tmp_path / f"{name}.yaml").read_text(encoding="utf-8")) for name in "ab")
    assert first["relatedness"] == second["relatedness"] and first["compared"] == second["compared"]
    assert second["groups"] == second["compared"]["random"]["groups"]
    assert "physical: within groups" in capsys.readouterr().out


def test_files_of_an_earlier_grouping_do_not_stay_beside_the_new_ones(place, tmp_path):
    out, own = tmp_path / "groups.yaml", tmp_path / "groups-9.yaml"
    own.write_text("mine", encoding="utf-8")
    for count in (3, 1):
        assert group(place, out, "--by", "affinity", "--groups", str(count)) == 0
        assert sorted(path.name for path in tmp_path.glob("groups-[1-8].yaml")) == [
            f"groups-{number}.yaml" for number in range(1, count + 1)
        ]
    assert own.read_text(encoding="utf-8") == "mine"  # no grouping wrote it
    out.write_text(yaml.safe_dump({"by": "random", "compared": {}, "groups": [["a"], ["b"], ["c"], ["d"]]}))
    kept = {name: TASKS[name] for name in ("缺陷 type", "extent")}
    given = tmp_path / "groups-4.yaml"
    given.write_text(yaml.safe_dump(kept, allow_unicode=True), encoding="utf-8")
    assert group(place, out, tasks=given) == 2 and given.exists()  # it would be taken away
    for content in ("groups: [[a], [b]]", "[", "groups"):  # nor this
        (tmp_path / "groups-2.yaml").write_text("mine", encoding="utf-8")
        out.write_text(content, encoding="utf-8")
        assert group(place, out, "--by", "affinity", "--groups", "1") == 0
        assert (tmp_path / "groups-2.yaml").read_text(encoding="utf-8") == "mine"


def test_a_stopped_grouping_leaves_nothing_and_promises_nothing(place, tmp_path, capsys, monkeypatch):
    def stopped(*_, **__):
        raise Interrupted(15, 2, tmp_path)

    monkeypatch.setattr("steelshift.grouping.train", stopped)
    assert group(place, tmp_path / "groups.yaml") == 143
    told = capsys.readouterr().err
    assert "groups.yaml" in told and "--resume" not in told and not list(tmp_path.iterdir())


def test_what_cannot_be_grouped_is_refused_and_nothing_written(place, tmp_path, capsys):
    one = {"extent": TASKS["extent"]}
    absent = TASKS | {"absent": {"classes": ["a", "b"], "column": "no such"}}
    for name, content in (("one.yaml", one), ("absent.yaml", absent)):
        (place / name).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    out = tmp_path / "groups.yaml"
    assert group(place, tmp_path / "groups.csv") == 2
    assert group(place, out, tasks="one.yaml") == 2
    assert group(place, out, "--groups", "4") == 2
    declared = (place / "tasks.yaml").read_bytes()
    assert group(place, place / "tasks.yaml") == 2 and (place / "tasks.yaml").read_bytes() == declared
    assert group(place, out, tasks="absent.yaml") == 3
    assert group(place, out, tasks="nothing.yaml") == 2
    assert "absent" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
