"""Tables of images: what the readers of folders and manifests give to everything else.

A table never holds a label. Labels are read by `read_labels`, the one door, from the same places; the source line
opens it freely, the target line only to judge, or for the few labels that are given to train. Rows are ordered by the
content of the files, so that moving or renaming them changes nothing.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import yaml

from steelshift.data.decode import Unreadable, read_bytes
from steelshift.errors import DataError, UsageError
from steelshift.files import read_words
from steelshift.labels import UNKNOWN
from steelshift.messages import say
from steelshift.progress import note

NOT_IMAGES = frozenset({".txt", ".md", ".csv", ".parquet", ".json", ".yaml", ".yml", ".xml", ".html", ".db", ".ini"})
"""Files beside images; whatever else lies in a folder is tried, by content and not by name."""
MANIFEST_SUFFIXES = frozenset({".csv", ".parquet"})
Crop = tuple[int, int, int, int]
_AT_ONCE = 500  # files that wait to be read: each costs a kilobyte while it does


@dataclass(frozen=True)
class Classes:
    """Class names in order, and the folder names or manifest labels that hold each."""

    names: tuple[str, ...]
    holders: dict[str, int]
    """Folder name -> class index."""

    @property
    def qualified(self) -> int | None:
        """Index of the defect-free class, where there is one."""
        return self.names.index("qualified") if "qualified" in self.names else None


@dataclass(frozen=True, slots=True)
class Row:
    """One image or one crop of an image; `id` is the sha256 of the file, with the crop where there is one."""

    id: str
    path: Path
    crop: Crop | None = None
    """x, y, width, height in pixels of the decoded image."""
    group: str | None = None
    """Images of one group (coil, strip, sheet) stay on one side of every split."""
    split: str | None = None
    """train, val or test where the manifest fixes it."""
    extra: tuple[tuple[str, str], ...] = ()
    """Columns that are carried through untouched."""


@dataclass(frozen=True)
class ImageTable:
    rows: tuple[Row, ...]
    unreadable: tuple[tuple[Path, str], ...] = ()
    """Files that could not be read or decoded, with the reason."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(row.id for row in self.rows)

    def take(self, index: Iterable[int]) -> "ImageTable":
        return replace(self, rows=tuple(self.rows[i] for i in index))


def load_classes(path: Path) -> Classes:
    """Read a YAML map from class name to the folder names that hold it. Raises UsageError."""
    try:
        mapping = read_words(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError("classes_unreadable", path=path, why=" ".join(str(error).split())[:160]) from error
    if not isinstance(mapping, dict) or len(mapping) < 2:
        raise UsageError("classes_malformed", path=path)
    holders: dict[str, int] = {}
    for index, folders in enumerate(mapping.values()):
        for folder in folders if isinstance(folders, list) else [folders]:
            if not isinstance(folder, str):
                raise UsageError("classes_malformed", path=path)
            if folder in holders:
                raise UsageError("classes_ambiguous", path=path, folder=folder)
            holders[folder] = index
    for index, name in enumerate(mapping):
        holders.setdefault(name, index)  # a manifest of tiles may name the class itself
    return Classes(tuple(mapping), holders)


def find_classes(places: Sequence[Path]) -> Classes:
    """The classes that the folder names, or the manifest's label column, give. Raises DataError without two."""
    names = sorted({row.label for row in _entries(places) if row.label is not None})
    if len(names) < 2:
        raise DataError("no_classes", where=", ".join(map(str, places)))
    return Classes(tuple(names), {name: index for index, name in enumerate(names)})


def read_images(places: Sequence[Path], classes: Classes | None = None, *, labelled: bool = False) -> ImageTable:
    """List the images under folders and in manifests, without labels, ordered by content.

    classes: keeps only images in folders that it lists, if there is any; a folder tree that holds none of the
        listed names is taken whole.
    labelled: a source line, whose images outside the listed folders are always left out.

    Raises DataError where there is no image.
    """
    entries = list_places(places)
    if classes is not None:
        inside = [entry for entry in entries if entry.label in classes.holders]
        if labelled:
            entries = inside
        elif inside:
            entries = [entry for entry in entries if entry.label is None or entry.label in classes.holders]
        if not entries:
            raise DataError("no_images", where=", ".join(map(str, places)))
    entries = list({(entry.path, entry.crop): entry for entry in entries}.values())  # an image named twice is one
    rows: list[Row] = []
    unreadable: list[tuple[Path, str]] = []
    for entry, digest in zip(entries, _digests([entry.path for entry in entries]), strict=True):
        if isinstance(digest, Unreadable):
            unreadable.append((entry.path, str(digest)))
            continue
        rows.append(Row(entry.named(digest), entry.path, entry.crop, entry.group, entry.split, entry.extra))
    # Equal files are told apart by nothing but their path; what is drawn from them is the same either way.
    rows.sort(key=lambda row: (row.id, str(row.path)))
    return ImageTable(tuple(rows), tuple(unreadable))


def read_labels(places: Sequence[Path], classes: Classes, table: ImageTable) -> np.ndarray:
    """Class index of every row of `table`, -1 where there is no label, UNKNOWN where it is no class: the one door to
    labels.

    For the target line only `evaluate`, the judging after training and the oracle may come through here.
    """
    found = {(entry.path, entry.crop): entry.label for entry in _entries(places)}
    labels = (found.get((row.path, row.crop)) for row in table.rows)
    return np.array([classes.holders.get(label, UNKNOWN) if label else -1 for label in labels], dtype=np.int64)


def read_labels_by_id(path: Path, classes: Classes) -> dict[str, int]:
    """Class index by image id, UNKNOWN where it is no class, from a CSV file with the columns label and id or path.

    A manifest of images, or of ids alone where the images are elsewhere. Rows without a label are left out. The same
    door as `read_labels`, under the same rule. Raises DataError.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            columns = set(reader.fieldnames or ())
            records = [(record["id"], record["label"]) for record in reader] if {"id", "label"} <= columns else []
    except (OSError, ValueError, csv.Error) as error:
        raise DataError("labels_columns", path=path, why=" ".join(str(error).split())[:160]) from error
    if "label" not in columns or not {"id", "path"} & columns:
        raise DataError("labels_columns", path=path, why=", ".join(sorted(columns)))
    if "id" not in columns:
        places = [place for place in list_places([path]) if place.label]
        digests = _digests([place.path for place in places])
        for place, digest in zip(places, digests, strict=True):
            if isinstance(digest, Unreadable):
                raise DataError("all_unreadable", count=1, path=place.path, why=digest)
        records = [(place.named(digest), place.label) for place, digest in zip(places, digests, strict=True)]
    found: dict[str, int] = {}
    others: Counter[str] = Counter()
    for name, label in ((name, label.strip()) for name, label in records):  # filled in by hand
        if label:
            index = classes.holders.get(label, UNKNOWN)
            others.update([label] * (index == UNKNOWN))
            if found.setdefault(name, index) != index:
                raise DataError("labels_twice", path=path, id=name)
    if others:
        listed = ", ".join(f"{label} ({count})" for label, count in others.most_common(10))
        note(say("labels_of_no_class", path=path, labels=listed, known=", ".join(classes.holders)))
    return found


def left_out(places: Sequence[Path], classes: Classes) -> dict[str, int]:
    """Folder names (or labels) that `classes` does not list, with their number of images."""
    counts: dict[str, int] = {}
    for entry in _entries(places):
        if entry.label is not None and entry.label not in classes.holders:
            counts[entry.label] = counts.get(entry.label, 0) + 1
    return counts


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies, before its bytes are read."""

    path: Path
    label: str | None
    crop: Crop | None = None
    group: str | None = None
    split: str | None = None
    extra: tuple[tuple[str, str], ...] = ()

    def named(self, digest: str) -> str:
        """The id of a row: the sha256 of its file, with the crop where there is one."""
        return digest if self.crop is None else "{}#{},{},{},{}".format(digest, *self.crop)


def list_places(places: Sequence[Path]) -> list[Place]:
    """Every image, or what may be one, under folders and in manifests. Raises DataError where there is none."""
    found = list(_entries(places))
    if not found:
        raise DataError("no_images", where=", ".join(map(str, places)))
    return found


def every_place(places: Sequence[Path]) -> Iterable[Place]:
    """Every file of folders, manifests' rows, and single files, in order: what `inspect` looks at."""
    for place in map(Path, places):
        if place.is_dir() or place.suffix.lower() in MANIFEST_SUFFIXES:
            yield from _entries([place], skip=frozenset())
        else:
            yield Place(place, None)


def _entries(places: Sequence[Path], skip: frozenset[str] = NOT_IMAGES) -> Iterable[Place]:
    for place in places:
        place = Path(place)
        if place.is_dir():
            for path in sorted(place.rglob("*")):
                if path.suffix.lower() not in skip and not _hidden(path, place) and not path.is_dir():
                    yield Place(path, path.parent.name if path.parent != place else None)
        elif place.suffix.lower() in MANIFEST_SUFFIXES and place.is_file():
            yield from _manifest(place)
        else:
            raise DataError("no_such_place", path=place)


def _manifest(path: Path) -> Iterable[Place]:
    for number, record in _records(path):
        name = record.pop("path", "")
        if not name:
            raise DataError("manifest_no_path", path=path, line=number)
        split = record.pop("split", "") or None
        if split not in (None, "train", "val", "test"):
            raise DataError("manifest_split", path=path, line=number, value=split)
        yield Place(
            path=path.parent / name,
            crop=_crop(record.pop("crop", ""), path, number),
            label=record.pop("label", "") or None,
            group=record.pop("group", "") or None,
            split=split,
            extra=tuple(record.items()),
        )


def _records(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    """Records with the line of the file they end in; a parquet file's rows count from 2, as if it had a header."""
    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            for number, record in enumerate(parquet.read_table(path).to_pylist(), start=2):
                yield number, {key: "" if value is None else str(value) for key, value in record.items()}
            return
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            if "path" not in (reader.fieldnames or ()):
                raise DataError("manifest_no_path", path=path, line=1)
            for record in reader:
                yield reader.line_num, record
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        raise DataError("manifest_unreadable", path=path, why=" ".join(str(error).split())[:160]) from error


def _crop(text: str, path: Path, line: int) -> Crop | None:
    if not text:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split())
    except ValueError:
        x = y = width = height = -1
    if x < 0 or y < 0 or width < 1 or height < 1:
        raise DataError("manifest_crop", path=path, line=line, value=text)
    return x, y, width, height


def _digests(paths: Sequence[Path]) -> list[str | Unreadable]:
    """sha256 of every file; a file with many crops is read once."""

    def digest(path: Path) -> str | Unreadable:
        try:
            return read_bytes(path)[0]
        except Unreadable as error:
            return error

    distinct = iter(dict.fromkeys(paths))
    found = {}
    with ThreadPoolExecutor() as pool:
        while some := list(islice(distinct, _AT_ONCE)):
            found |= zip(some, pool.map(digest, some), strict=True)
    return [found[path] for path in paths]
