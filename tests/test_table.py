import csv
import hashlib
from dataclasses import fields

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from builders import encoded, picture, write, write_line
from steelshift.data.table import (
    Classes,
    ImageTable,
    Place,
    Row,
    every_place,
    find_classes,
    left_out,
    load_classes,
    read_images,
    read_labels,
)
from steelshift.errors import DataError, UsageError
from steelshift.labels import UNKNOWN

CLASSES = Classes(("inclusion", "qualified"), {"inclusion": 0, "Slag": 0, "qualified": 1})


def snapshot(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def line(tmp_path):
    folder = write_line(tmp_path / "line", {"inclusion": 3, "Slag": 2, "qualified": 4, "odd": 2})
    write(folder / "notes.txt", b"no image")
    write(folder / "qualified" / ".thumb.png", encoded(picture(99)))
    return folder


def manifest(path, records, encoding="utf-8"):
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
        return path
    with path.open("w", encoding=encoding, newline="") as file:
        names = dict.fromkeys(key for record in records for key in record)
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in record.items()} for record in records)
    return path


def test_class_folders_give_classes_rows_and_labels(line):
    classes = find_classes([line])
    table = read_images([line], classes)
    labels = read_labels([line], classes, table)
    assert classes.names == ("Slag", "inclusion", "odd", "qualified") and classes.qualified == 3
    assert len(table) == 11 and table.unreadable == ()
    for row, label in zip(table.rows, labels, strict=True):
        assert row.id == hashlib.sha256(row.path.read_bytes()).hexdigest()
        assert classes.names[label] == row.path.parent.name


def test_a_class_file_joins_folders_and_leaves_others_out(line, tmp_path):
    written = write(tmp_path / "classes.yaml", "inclusion: [Slag]\nqualified:\n - qualified\n - 合格\n".encode())
    classes = load_classes(written)
    assert classes.names == ("inclusion", "qualified")
    table = read_images([line], classes, labelled=True)
    labels = read_labels([line], classes, table)
    assert {row.path.parent.name for row in table.rows} == {"inclusion", "Slag", "qualified"}
    assert np.bincount(labels).tolist() == [5, 4]
    assert left_out([line], classes) == {"odd": 2}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a: [x]\n", "classes_malformed"),
        (b"just words", "classes_malformed"),
        (b"- a\n- b\n", "classes_malformed"),
        (b"", "classes_malformed"),
        (b"a: [x]\nb: [y, x]\n", "classes_ambiguous"),
        (b"a: [x\n", "classes_unreadable"),
        (b"a: \xff\xfe\n", "classes_unreadable"),
        (None, "classes_unreadable"),
    ],
)
def test_a_wrong_class_file_is_named(tmp_path, text, reason):
    path = tmp_path / "classes.yaml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        load_classes(path)
    assert caught.value.key == reason and str(path) in str(caught.value)


def test_a_target_line_without_class_folders_is_taken_whole(line, tmp_path):
    target = write_line(tmp_path / "target", {"monday": 3, "tuesday": 2}, seed=50)
    assert len(read_images([target], CLASSES)) == 5
    assert (read_labels([target], CLASSES, read_images([target], CLASSES)) == UNKNOWN).all()
    loose = [write(tmp_path / "loose" / path.name, path.read_bytes()) for path in sorted(target.rglob("*.png"))]
    assert loose and (read_labels([tmp_path / "loose"], CLASSES, read_images([tmp_path / "loose"])) == -1).all()
    assert len(read_images([line], CLASSES)) == 9
    with pytest.raises(DataError, match=str(target)):
        read_images([target], CLASSES, labelled=True)


def test_rows_follow_content_whatever_the_names(line, tmp_path):
    before = read_images([line])
    for number, row in enumerate(reversed(before.rows)):
        write(tmp_path / "moved" / f"{number % 4}" / f"{number}.bmp", row.path.read_bytes())
    after = read_images([tmp_path / "moved"])
    assert after.ids == before.ids == tuple(sorted(before.ids))


def test_no_part_of_a_table_can_hold_a_label(line):
    table = read_images([line], CLASSES)
    for kind in (ImageTable, Row):
        assert not [name for name in dir(kind) if "label" in name.lower()]
        assert not [field.name for field in fields(kind) if "label" in field.name]
    assert "label" in {field.name for field in fields(Place)}
    for row in table.rows:
        assert (row.group, row.split, row.extra) == (None, None, ())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_gives_everything_but_the_label(tmp_path, suffix):
    names = ["a.png", "带 空格/划痕 1.png", "b,c.png"]
    for seed, name in enumerate(names):
        write(tmp_path / name, encoded(picture(seed)))
    records = [
        {"path": names[0], "label": "Slag", "group": "coil 1", "split": "test", "crop": None, "camera": "left"},
        {"path": names[1], "label": "qualified", "group": None, "split": None, "crop": "1 2 8 9", "camera": "右"},
        {"path": names[2], "label": None, "group": "coil 1", "split": None, "crop": None, "camera": None},
    ]
    path = manifest(tmp_path / f"清单{suffix}", records)
    table = read_images([path], CLASSES, labelled=True)
    labels = dict(zip((row.path.name for row in table.rows), read_labels([path], CLASSES, table), strict=True))
    assert labels == {"a.png": 0, "划痕 1.png": 1}
    everything = {row.path: row for row in read_images([path]).rows}
    first, second, third = (everything[tmp_path / name] for name in names)
    assert (first.group, first.split, first.crop, first.extra) == ("coil 1", "test", None, (("camera", "left"),))
    assert (second.group, second.split, second.crop, second.extra) == (None, None, (1, 2, 8, 9), (("camera", "右"),))
    assert second.id.endswith("#1,2,8,9") and third.group == "coil 1"
    assert "Slag" not in repr(table) and find_classes([path]).names == ("Slag", "qualified")


def test_a_byte_order_mark_does_no_harm(tmp_path):
    write(tmp_path / "a.png", encoded(picture()))
    path = manifest(tmp_path / "m.csv", [{"path": "a.png", "label": "x"}], encoding="utf-8-sig")
    assert [row.path.name for row in read_images([path]).rows] == ["a.png"]


def test_crops_of_one_image_have_labels_of_their_own(tmp_path):
    write(tmp_path / "strip.png", encoded(picture()))
    crops = {"0 0 8 8": "Slag", "8 0 8 8": "qualified", "16 0 8 8": "inclusion"}
    path = manifest(tmp_path / "m.csv", [{"path": "strip.png", "crop": c, "label": n} for c, n in crops.items()])
    table = read_images([path], CLASSES)
    labels = read_labels([path], CLASSES, table)
    found = {" ".join(map(str, row.crop)): label for row, label in zip(table.rows, labels, strict=True)}
    assert found == {"0 0 8 8": 0, "8 0 8 8": 1, "16 0 8 8": 0}
    assert len(set(table.ids)) == 3


@pytest.mark.parametrize(
    ("text", "reason", "number"),
    [
        ("name,label\na.png,x\n", "manifest_no_path", 1),
        ("", "manifest_no_path", 1),
        ("path,label\na.png,x\n,y\n", "manifest_no_path", 3),
        ("path,split\na.png,train\na.png,validate\n", "manifest_split", 3),
        ("path,crop\na.png,0 0 8\n", "manifest_crop", 2),
        ("path,crop\na.png,0 0 8 0\n", "manifest_crop", 2),
        ("path,crop\na.png,-1 0 8 8\n", "manifest_crop", 2),
        ("path,crop\na.png,a b c d\n", "manifest_crop", 2),
        ("path,split\na.png,train\n\n\na.png,no\n", "manifest_split", 5),
        ('path,note,split\na.png,"two\nlines",train\na.png,,no\n', "manifest_split", 4),
    ],
)
def test_a_wrong_manifest_is_named_with_its_line(tmp_path, text, reason, number):
    path = tmp_path / "m.csv"
    path.write_text(text)
    for read in (read_images, find_classes):
        with pytest.raises(DataError) as caught:
            read([path])
        assert caught.value.key == reason
        assert str(path) in str(caught.value) and f"line {number}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", b"path,label\n\xff\xfe,x\n"),
        ("m.csv", b"path,label\n" + b"a" * 200_000 + b",x\n"),
        ("m.parquet", b"path,label\na.png,x\n"),
        ("m.parquet", b"PAR1 nothing PAR1"),
        ("m.parquet", b""),
    ],
    ids=["not UTF-8", "a huge field", "CSV as parquet", "broken parquet", "empty parquet"],
)
def test_an_unreadable_manifest_is_named(tmp_path, name, content):
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        read_images([path])
    assert caught.value.key == "manifest_unreadable" and str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["\0", "nowhere.png", "../elsewhere/a.png", "/", "x" * 300])
def test_a_path_that_names_no_file_is_an_unreadable_row(tmp_path, name):
    write(tmp_path / "a.png", encoded(picture()))
    path = write(tmp_path / "m.csv", f"path,label\na.png,x\n{name},y\n".encode())
    table = read_images([path])
    assert len(table) == 1
    [(_, why)] = table.unreadable
    assert why


@pytest.mark.parametrize("name", ["absent", "file.png", "file.json"])
def test_a_place_that_is_neither_folder_nor_manifest_is_refused(tmp_path, name):
    if name != "absent":
        write(tmp_path / name, b"{}")
    with pytest.raises(DataError) as caught:
        read_images([tmp_path / name])
    assert caught.value.key == "no_such_place" and name in str(caught.value)


def test_an_empty_folder_and_a_single_class_are_refused(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)) as caught:
        read_images([tmp_path])
    assert caught.value.key == "no_images"
    write_line(tmp_path, {"only": 3})
    with pytest.raises(DataError) as caught:
        find_classes([tmp_path])
    assert caught.value.key == "no_classes"


def test_unreadable_files_are_named_and_the_others_stay(line, tmp_path):
    write(line / "qualified" / "empty.png", b"")
    (line / "qualified" / "dangling.png").symlink_to(tmp_path / "nowhere")
    table = read_images([line])
    assert len(table) == 11
    assert {path.name for path, why in table.unreadable if why} == {"empty.png", "dangling.png"}


def test_single_files_folders_and_manifests_can_be_inspected_together(line, tmp_path):
    single = write(tmp_path / "one.txt", b"inspected as it is")
    places = list(every_place([single, line]))
    assert places[0].path == single
    assert line / "notes.txt" in {place.path for place in places} and len(places) == 13


def test_reading_writes_nothing_into_the_users_folders(line):
    before = snapshot(line)
    classes = find_classes([line])
    read_labels([line], classes, read_images([line], classes))
    assert snapshot(line) == before
