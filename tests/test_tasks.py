"""Declared tasks: what YAML may say, whose labels are read, and what is refused."""

import csv
from pathlib import Path

import pytest

from builders import encoded, picture, write, write_line
from steelshift.data.table import read_images
from steelshift.data.tasks import Task, cells, check_data, known, load_tasks, plain_task, read_task_labels, strata
from steelshift.errors import DataError, UsageError

DECLARED = """
defect:
  classes: [qualified, crazing, scratches]
  mechanism: thermal
  material: steel
defective:
  kind: yes/no
  classes: {yes: [crazing, scratches], no: [qualified]}
  data: mill/source
severity:
  kind: ordinal
  classes: [none, small, large]
  column: extent
  data: [other.csv]
瑕疵 种类:
  kind: multi-label
  classes: {a: [A, α], b: B, none: clean}
  column: found
"""


def declared(tmp_path: Path, text: str = DECLARED) -> tuple[Task, ...]:
    return load_tasks(write(tmp_path / "tasks.yaml", text.encode()))


def test_what_a_file_declares(tmp_path: Path) -> None:
    defect, defective, severity, many = declared(tmp_path)
    assert (defect.name, defect.kind, defect.classes) == (
        "defect",
        "single-label",
        ("qualified", "crazing", "scratches"),
    )
    assert (defect.mechanism, defect.material, defect.column, defect.data) == ("thermal", "steel", "label", ())
    assert defect.negative == 0 and severity.negative is None
    assert defective.classes == ("no", "yes") and defective.label("crazing") == 1 and defective.negative == 0
    assert severity.classes == ("none", "small", "large") and severity.data == ("other.csv",)
    assert many.name == "瑕疵 种类" and many.classes == ("a", "b") and many.holders["α"] == (0,)
    assert declared(tmp_path, "x: {kind: yes/no}")[0].label("true") == 1
    assert plain_task(("a", "b")).label("b") == 1


def test_names_are_taken_as_they_are_written(tmp_path: Path) -> None:
    code, switch = declared(tmp_path, "code: {classes: [01, 07, 08]}\nswitch: {classes: [on, off]}")
    assert code.classes == ("01", "07", "08") and code.label("07") == 1
    assert switch.classes == ("on", "off")
    answer = declared(tmp_path, "x: {kind: yes/no}")[0]
    said = ("TRUE", "Yes", "1.0", "no", "False", "0", "maybe")
    assert [answer.label(value) for value in said] == [1, 1, 1, 0, 0, 0, -1]


def test_values_become_labels(tmp_path: Path) -> None:
    defect, defective, _, many = declared(tmp_path)
    assert [defect.label(value) for value in ("qualified", "scratches", "dust", "")] == [0, 2, -1, -1]
    assert defective.label("scratches") == 1
    assert [many.label(value) for value in ("A", "α; B", "none", "clean", "c", "", "c;B")] == [
        [1, 0], [1, 1], [0, 0], [0, 0], [-1, -1], [-1, -1], [-1, 1]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "not a map"),
        ("a: [x, y]", "not a map of keys"),
        ("a: {classes: [x, y], colour: red}", "unknown key a.colour|a.colour"),
        ("a: {kind: triple, classes: [x, y]}", "kind triple"),
        ("a: {kind: single-label}", "no classes"),
        ("a: {classes: [x]}", "fewer than two"),
        ("a: {classes: [x, x, y]}", "twice"),
        ("a: {classes: {x: [u], y: [u]}}", "of two classes"),
        ("a: {kind: yes/no, classes: [x, y]}", "map of no and yes"),
        ("a: {kind: yes/no, classes: {no: [x], maybe: [y]}}", "map of no and yes"),
        ("a: {classes: [x", "cannot be read"),
        ("a: {classes: [x, y]}\na: {classes: [u, v]}", "a is there twice"),
        ("a: {classes: [x, {y: z}]}", "no text"),
        ("a: {classes: [x, y], column: [u]}", "column is no text"),
        ("", "not a map"),
        ("'': {classes: [x, y]}", "no name"),
    ],
)
def test_what_is_not_a_declaration_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        declared(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_tasks(tmp_path / "none.yaml")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Class folders, and a manifest of other images with columns."""
    root = tmp_path_factory.mktemp("places")
    folder = write_line(root / "mill" / "source", {"qualified": 3, "crazing": 2, "odd": 2})
    records = [("small", "A;B"), ("large", ""), ("", "none"), ("huge", "B")]
    with (root / "other.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "extent", "found"])
        for number, record in enumerate(records):
            write(root / f"{number}.png", encoded(picture(100 + number)))
            writer.writerow([f"{number}.png", "scratches", *record])
    return [folder, root / "other.csv"]


def test_labels_by_task_and_data_set(tmp_path: Path, places: list[Path]) -> None:
    tasks = declared(tmp_path)
    check_data(tasks, places)
    table = read_images(places)
    labels, unlisted = read_task_labels(places, tasks, table)
    of = {row.path.parent.name if row.path.parent.name in ("qualified", "crazing", "odd") else row.path.stem: number
          for number, row in enumerate(table.rows)}  # fmt: skip
    defect, defective, severity, many = (labels[task.name] for task in tasks)
    assert sorted(defect.tolist()) == [-1] * 2 + [0] * 3 + [1] * 2 + [2] * 4
    assert (defective[[of["0"], of["1"], of["odd"]]] == -1).all() and defective[of["crazing"]] == 1
    assert [severity[of[name]] for name in ("0", "1", "2", "3", "crazing")] == [1, 2, -1, -1, -1]
    assert many.shape == (11, 2)
    assert many[[of["0"], of["1"], of["2"], of["3"]]].tolist() == [[1, 1], [-1, -1], [0, 0], [0, 1]]
    assert unlisted["defect"] == {"odd": 2} and unlisted["severity"] == {"huge": 1} and not unlisted["瑕疵 种类"]
    assert known(many).sum() == 3 and known(severity).sum() == 2
    by = strata(labels)
    assert (by[known(defect)] >= 0).all() and by[of["odd"]] == -1 and by[of["crazing"]] != by[of["qualified"]]
    assert [len(rows) for rows in cells(defect)] == [3, 2, 4]
    assert [len(rows) for rows in cells(many)] == [1, 2, 1]


def test_an_image_may_have_its_labels_in_several_places(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"{number}.png", encoded(picture(number)))
    type_of = write(tmp_path / "type.csv", b"path,label\n0.png,crazing\n1.png,scratches\n")
    size_of = write(tmp_path / "size.csv", b"path,size\n0.png,small\n1.png,large\n")
    tasks = declared(tmp_path, "type: {classes: [crazing, scratches]}\nsize: {classes: [small, large], column: size}")
    for places in ([type_of, size_of], [size_of, type_of]):
        table = read_images(places)
        assert len(table) == 2
        labels, _ = read_task_labels(places, tasks, table)
        order = [table.rows[row].path.name for row in range(2)]
        wanted = [int(name[0]) for name in order]
        assert labels["type"].tolist() == labels["size"].tolist() == wanted
    other = write(tmp_path / "other.csv", b"path,label\n0.png,scratches\n")
    with pytest.raises(DataError, match="two classes"):
        read_task_labels([type_of, other], tasks, read_images([type_of, other]))


def test_places_that_know_different_classes_of_an_image_complete_each_other(tmp_path: Path) -> None:
    write(tmp_path / "0.png", encoded(picture(0)))
    one = write(tmp_path / "one.csv", b"path,label\n0.png,a;odd\n")
    other = write(tmp_path / "other.csv", b"path,label\n0.png,b;strange\n")
    tasks = declared(tmp_path, "marks: {kind: multi-label, classes: [a, b]}")
    labels, _ = read_task_labels([one, other], tasks, read_images([one, other]))
    assert labels["marks"].tolist() == [[1, 1]]
    alone, _ = read_task_labels([one], tasks, read_images([one]))
    assert alone["marks"].tolist() == [[1, -1]] and known(alone["marks"]).all()
    contrary = write(tmp_path / "contrary.csv", b"path,label\n0.png,b\n")
    with pytest.raises(DataError, match="two classes"):
        read_task_labels([one, contrary], tasks, read_images([one, contrary]))


def test_tasks_of_one_nature_declare_their_mechanism(tmp_path: Path) -> None:
    said = "a: {classes: [x, y], material: steel}\nb: {classes: [x, y], material: steel}\n"
    said += "".join(f"{name}: {{classes: [x, y], material: steel, mechanism: thermal}}\n" for name in "cd")
    a, b, c, d = (task.nature for task in declared(tmp_path, said))
    assert c == d and len({a, b, c}) == 3


def test_a_data_set_that_is_not_there_is_refused(tmp_path: Path, places: list[Path]) -> None:
    with pytest.raises(DataError, match=r"defective.*mill/source"):
        check_data(declared(tmp_path), places[1:])


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, places: list[Path]) -> None:
    def tasks(column: str, classes: str = "[small, large]", data: str = "other.csv") -> tuple[Task, ...]:
        return declared(tmp_path, f"marks: {{classes: {classes}, column: {column}, data: {data}}}")

    check_data(tasks("extent"), places)
    with pytest.raises(DataError, match=r"marks .* column extend, which .*other.csv does not.*extent, found\."):
        check_data(tasks("extend"), places)
    with pytest.raises(DataError, match=r"column found, which .*source does not have. There are: label\."):
        check_data(tasks("found", data="mill/source"), places)
    for column, classes in (("found", "[a, b]"), ("label", "[scratches, dents]")):  # none, and one class alone
        with pytest.raises(DataError, match=r"No image of .*other.csv has a label of two classes for the task marks"):
            check_data(tasks(column, classes), places)
    with pytest.raises(DataError, match="two classes"):
        bare = tmp_path / "bare"
        write(bare / "0.png", encoded(picture(0)))  # no column to name
        check_data(declared(tmp_path, "marks: {classes: [a, b], column: found}"), [bare])
