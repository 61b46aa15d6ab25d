"""Tasks: what an inspector is to say of an image, declared in YAML and not coded.

    defect:                                     # name of the task
      kind: single-label                        # or multi-label, yes/no, ordinal (classes from least to most)
      classes: [qualified, crazing, scratches]  # or a map from class name to the values that hold it
    defective:
      kind: yes/no
      classes: {no: [qualified], yes: [crazing, scratches]}
      column: label                             # folder name, or the manifest's column of that name
      data: [mill/source]                       # whose images have labels for it: how the paths of --source end
      mechanism: thermal                        # free text, for grouping by nature
      material: steel

An image without a value for a task, or with one that the task does not list, has no label for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from steelshift.data.table import ImageTable, Place, list_places
from steelshift.errors import DataError, UsageError
from steelshift.files import read_words

Kind = Literal["single-label", "multi-label", "yes/no", "ordinal"]
PLAIN = "class"
"""The task of a plain run."""
ALL_OF = ";"
"""Between the values of an image in a multi-label task."""
NONE_OF = "none"
"""Value of an image in a multi-label task that is known to have none of its classes; in a map of classes, the values
that say so."""
_OWN = ("label", "group", "split")
"""Columns of every manifest; folders give a label."""
_KEYS = ("kind", "classes", "column", "data", "mechanism", "material")
_SAID = {
    "no": ("no", "No", "NO", "false", "False", "FALSE", "0", "0.0"),
    "yes": ("yes", "Yes", "YES", "true", "True", "TRUE", "1", "1.0"),
}


@dataclass(frozen=True)
class Task:
    """One task, and where its labels are found."""

    name: str
    kind: Kind
    classes: tuple[str, ...]
    """Of yes/no always no, then yes; of an ordinal task from the least to the most."""
    holders: dict[str, tuple[int, ...]]
    """Value of the column -> class index; in a multi-label task it may stand for several."""
    column: str = "label"
    data: tuple[str, ...] = ()
    """Ends of the paths of the places whose images have labels for it; empty for all."""
    mechanism: str | None = None
    material: str | None = None

    @property
    def nature(self) -> tuple[str | None, ...]:
        """What tasks of one kind of defect share: material and mechanism; what declares no mechanism is alone."""
        return (self.material, self.mechanism) if self.mechanism else (self.name,)

    @property
    def negative(self) -> int | None:
        """Index of the class that stands for nothing found: no, or qualified; None where there is none."""
        if self.kind == "yes/no":
            return 0
        return self.classes.index("qualified") if "qualified" in self.classes else None

    def label(self, value: str) -> Any:
        """Class index of a value, -1 where it is of no class; of a multi-label task a list of 1, 0 and -1 by class.

        Where a multi-label value has a part that the task does not list, the classes it does not name are not known.
        """
        if self.kind != "multi-label":
            return self.holders.get(value, (-1,))[0]
        parts = self.parts(value)
        found = {index for part in parts for index in self.holders.get(part, ())}
        absent = 0 if parts and all(part in self.holders for part in parts) else -1
        return [1 if index in found else absent for index in range(len(self.classes))]

    def parts(self, value: str) -> list[str]:
        """What a value says, one by one."""
        if self.kind != "multi-label":
            return [value] if value else []
        return [part for part in map(str.strip, value.split(ALL_OF)) if part]

    def unlisted(self, value: str) -> list[str]:
        """Parts of a value that the task does not list."""
        return [part for part in self.parts(value) if part not in self.holders]

    def concerns(self, place: Path) -> bool:
        """Whether images of a place of the command line may have labels for it."""
        return not self.data or any(_ends_with(place, name) for name in self.data)


def plain_task(classes: tuple[str, ...]) -> Task:
    """The one task of a run without declared tasks."""
    return Task(PLAIN, "single-label", classes, {name: (index,) for index, name in enumerate(classes)})


def load_tasks(path: Path) -> tuple[Task, ...]:
    """Read the declarations of a YAML file, in its order. Raises UsageError."""
    try:
        mapping = read_words(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError("tasks_unreadable", path=path, why=" ".join(str(error).split())[:160]) from error
    if not isinstance(mapping, dict) or not mapping:
        raise UsageError("tasks_unreadable", path=path, why="not a map from task name to its keys")
    return tuple(_task(path, name, keys) for name, keys in mapping.items())


def read_task_labels(
    places: Sequence[Path], tasks: Sequence[Task], table: ImageTable
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, int]]]:
    """Labels by task of every row of `table`, and by task the values that it does not list, with their numbers.

    int64 (rows,), or (rows, classes) for a multi-label task; -1 where there is none. An image may have its labels in
    several places. The same door as `read_labels`, under the same rule. Raises DataError where places disagree.
    """
    found: dict[str, np.ndarray] = {}
    unlisted: dict[str, dict[str, int]] = {task.name: {} for task in tasks}
    told: dict[tuple[Path, Any], list[tuple[Path, Place]]] = {}
    for place in map(Path, places):
        for entry in list_places([place]):
            told.setdefault((entry.path, entry.crop), []).append((place, entry))
    for task in tasks:
        missing = task.label("")
        labels = []
        for row in table.rows:
            label = missing
            for place, entry in told.get((row.path, row.crop), ()):
                value = _value(entry, task.column) if task.concerns(place) else ""
                for part in task.unlisted(value):
                    unlisted[task.name][part] = unlisted[task.name].get(part, 0) + 1
                both = _together(label, task.label(value))
                if both is None:
                    raise DataError("labels_twice", path=place, id=f"{row.path} ({task.name})")
                label = both
            labels.append(label)
        found[task.name] = np.array(labels, dtype=np.int64).reshape(len(table), *np.shape(missing))
    return found, unlisted


def columns_of(tasks: Sequence[Task]) -> dict[str, slice]:
    """Where each task's logits or probabilities lie, side by side in the order of the tasks."""
    ends = np.cumsum([0, *(len(task.classes) for task in tasks)])
    return {task.name: slice(int(ends[place]), int(ends[place + 1])) for place, task in enumerate(tasks)}


def check_data(tasks: Sequence[Task], places: Sequence[Path]) -> None:
    """Hold what every task names, data sets, column and classes, to the places of the command line. Raises DataError.

    Before an image is decoded, which takes much longer.
    """
    for task in tasks:
        for name in task.data:
            if not any(_ends_with(Path(place), name) for place in places):
                raise DataError("task_no_data", task=task.name, name=name, places=", ".join(map(str, places)))
    listed = [(Path(place), list_places([place])) for place in places]
    for task in tasks:
        entries = [entry for place, found in listed if task.concerns(place) for entry in found]
        columns = {column: None for entry in entries for column in _columns(entry)}
        where = ", ".join(str(place) for place, _ in listed if task.concerns(place))
        if columns and task.column not in columns:
            raise DataError("task_no_column", task=task.name, column=task.column, where=where, known=", ".join(columns))
        if len(cells(np.array([task.label(_value(entry, task.column)) for entry in entries]))) < 2:
            raise DataError("task_no_labels", task=task.name, where=where)


def known(labels: np.ndarray) -> np.ndarray:
    """Which rows have a label: bool (rows,)."""
    return labels >= 0 if labels.ndim == 1 else (labels >= 0).any(1)


def cells(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of every class of a task that occurs; of a multi-label task also the rows without any."""
    if labels.ndim == 1:
        return [np.flatnonzero(labels == value) for value in np.unique(labels[labels >= 0])]
    found = [np.flatnonzero(column == 1) for column in labels.T]
    return [rows for rows in [*found, np.flatnonzero((labels == 0).all(1))] if len(rows)]


def strata(labels: dict[str, np.ndarray]) -> np.ndarray:
    """What splits are stratified by: the number of the rarest class of any task that a row is of; -1 of none."""
    members = [rows for values in labels.values() for rows in cells(values)]
    found = np.full(len(next(iter(labels.values()))), -1)
    for number in sorted(range(len(members)), key=lambda number: -len(members[number])):
        found[members[number]] = number
    return found


def counts_of(task: Task, labels: np.ndarray) -> np.ndarray:
    """Rows of every class (K,); of a multi-label task without and with each class (K, 2)."""
    if task.kind == "multi-label":
        return np.stack([(labels == 0).sum(0), (labels == 1).sum(0)], 1)
    return np.bincount(labels[labels >= 0], minlength=len(task.classes))


def _task(path: Path, name: str, keys: Any) -> Task:
    if not str(name).strip():
        raise UsageError("task_no_name", path=path)
    if not isinstance(keys, dict):
        raise UsageError("task_malformed", path=path, task=name, why="not a map of keys")
    for key, value in keys.items():
        if key not in _KEYS:
            raise UsageError("unknown_key", key=f"{name}.{key}", known=", ".join(_KEYS))
        parts = value if key == "data" and isinstance(value, list) else [value]
        if key != "classes" and not all(isinstance(part, str) for part in parts):
            raise UsageError("task_malformed", path=path, task=name, why=f"{key} is no text")
    kind = keys.get("kind", "single-label")
    if kind not in get_args(Kind):
        why = f"kind {kind} is none of {', '.join(get_args(Kind))}"
        raise UsageError("task_malformed", path=path, task=name, why=why)
    classes, holders = _classes(path, name, kind, keys.get("classes"))
    return Task(
        name,
        kind,
        classes,
        holders,
        column=keys.get("column") or "label",
        data=tuple(_listed(keys.get("data") or [])),
        **{key: keys.get(key) or None for key in ("mechanism", "material")},
    )


def _classes(path: Path, name: str, kind: str, declared: Any) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    def malformed(why: str) -> UsageError:
        return UsageError("task_malformed", path=path, task=name, why=why)

    held = declared.values() if isinstance(declared, dict) else declared if isinstance(declared, list) else []
    if not all(isinstance(value, str) for values in held for value in _listed(values)):
        raise malformed("a class, or what holds it, is no text")
    if isinstance(declared, dict):
        values = {key: list(_listed(held)) for key, held in declared.items()}
    elif kind == "yes/no" and declared is None:
        values = {key: list(said) for key, said in _SAID.items()}
    elif isinstance(declared, list) and kind != "yes/no":
        values = {key: [] for key in declared}
        if len(values) < len(declared):
            raise malformed("a class is named twice")
    else:
        raise malformed("classes of yes/no are a map of no and yes" if kind == "yes/no" else "it has no classes")
    if kind == "yes/no":
        if set(values) != {"no", "yes"}:
            raise malformed("classes of yes/no are a map of no and yes")
        values = {key: values[key] for key in ("no", "yes")}
    without = [NONE_OF, *values.pop(NONE_OF, [])] if kind == "multi-label" else []
    if len(values) < (1 if kind == "multi-label" else 2):
        raise malformed("it has fewer than two classes")
    holders: dict[str, tuple[int, ...]] = {}
    for index, held in enumerate(values.values()):
        for value in held:
            if kind != "multi-label" and holders.get(value, (index,)) != (index,):
                raise malformed(f"{value} is of two classes")
            holders[value] = (*(other for other in holders.get(value, ()) if other != index), index)
    for index, key in enumerate(values):
        holders.setdefault(key, (index,))  # a manifest may name the class itself
    holders |= {value: () for value in without}
    return tuple(values), holders


def _columns(entry: Place) -> list[str]:
    """Those that may hold a label of this image."""
    own = [column for column in _OWN if getattr(entry, column)]
    return own + [column for column, _ in entry.extra if column]


def _value(entry: Place, column: str) -> str:
    if column in _OWN:
        return getattr(entry, column) or ""
    return dict(entry.extra).get(column, "").strip()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _ends_with(place: Path, name: str) -> bool:
    """Whether the last parts of a path are those of a name, with or without the suffix of a manifest."""
    wanted = Path(name).parts
    absolute = place.absolute()
    return any(path.parts[-len(wanted) :] == wanted for path in (absolute, absolute.with_suffix("")))


def _together(one: Any, other: Any) -> Any:
    """Two labels of an image as one; None where they contradict each other."""
    if isinstance(one, list):
        parts = [_together(*pair) for pair in zip(one, other, strict=True)]
        return None if None in parts else parts
    return max(one, other) if one < 0 or other < 0 or one == other else None
