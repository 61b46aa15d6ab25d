"""A suite: which pairs of lines, which methods, which seeds. Read from YAML.

    seeds: [0, 1, 2]
    settings: {size: 112, steps: 600}          # options of `fit` for every run
    validators: true                           # score every checkpoint by every judge, into validators.csv
    arrays: false                              # keep what `estimate` reads of each run, into arrays/
    pairs:
      drawn, middle: {synthetic: middle, images: 700}
      two mills: {source: [$DATA/one], target: [$DATA/other], classes: two-mills.yaml}
      new camera: {photographed: $DATA/one, shift: middle}
    methods:
      dann: {method: dann}
      plain words: {method: iadsa, knobs: {embedding: none}, augmentation: strong}
      five labels: {method: dann, few: 5}      # labelled target images a class, other ones for every seed

Paths of pairs are relative to the file and may name environment variables.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from steelshift.choosing import single_methods
from steelshift.data.camera import Shift, load_lines
from steelshift.data.table import load_classes
from steelshift.errors import UsageError
from steelshift.methods import METHODS
from steelshift.methods.method import Method
from steelshift.training.config import AUTO, LEAST_FEW_SHARE, Config, from_mapping, read_mapping, resolve, to_mapping

GIVEN = ("source", "target", "target_labels", "classes", "out", "seed", "cache", "tasks", "sharing", "ratios")
"""Options of `fit` that the suite gives to each run itself, and those of several tasks, of which it knows nothing."""
LATER = {"target_classes": "same"}
"""Knobs that came when tables were there already, with the values that change nothing in those."""
MOST_BYTES = 200
"""Of a name."""
_KINDS = {
    "synthetic": {"synthetic", "images", "flipped", "absent", "unknown"},
    "photographed": {"photographed", "shift", "flipped", "absent", "unknown"},
    "source": {"source", "target", "classes", "tile", "masks", "flipped"},
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A source and a target line: two drawn ones, one photographed anew, or two that are there."""

    synthetic: str | None = None
    """Shift, by name or file, of two synthetic lines."""
    images: int = 700
    """Images of each synthetic line."""
    photographed: Path | None = None
    """Labelled images; one half is the source line, the other half seen through the simulated camera the target."""
    shift: str = "middle"
    """Shift of that camera, by name or file."""
    source: tuple[Path, ...] = ()
    """Labelled images of the source line."""
    target: tuple[Path, ...] = ()
    """Images of the target line, labelled for judging."""
    classes: Path | None = None
    """YAML map from class name to folder names. Target images outside them are left out: a closed set."""
    tile: int | None = None
    """Side in pixels of tiles that both lines are cut into."""
    masks: Path | None = None
    """For tiles: folder of mask folders, named as those of the images. Tiles with little of a defect are left out."""
    flipped: float = 0.0
    """Share of source labels that are replaced by another class's, 0 to 1."""
    absent: tuple[str, ...] = ()
    """Classes that the target line lacks: a partial set."""
    unknown: tuple[str, ...] = ()
    """Classes that the source line lacks: an open set."""


@dataclass(frozen=True)
class Suite:
    seeds: tuple[int, ...]
    pairs: dict[str, Pair]
    methods: dict[str, dict[str, Any]]
    """Options of `fit` by name of the row, with the suite's settings filled in."""
    validators: bool = True
    """Whether every checkpoint is scored by every judge, not only by those that choose. Rows that are there stay."""
    arrays: bool = False
    """Whether features and answers of the selected inspectors are kept, of rows that are made from then on."""

    def config(self, method: str, seed: int, **given: Any) -> Config:
        """The resolved config of one run. Raises UsageError."""
        nowhere = {"source": (Path(),), "target": (Path(),), "out": Path()}  # of `given`, or of no matter
        options = {key: value for key, value in self.methods[method].items() if key != "few"}
        return resolve(from_mapping(Config, options, seed=seed, **(nowhere | given)))

    def few(self, method: str) -> int:
        """Labelled target images a class, drawn from the target's training split; 0 for none."""
        return self.methods[method].get("few", 0)

    @cached_property
    def hashes(self) -> dict[tuple[str, int, str], str]:
        """`hash_of` every run, by pair, seed and method."""
        return {
            (name, seed, method): hash_of(self.config(method, seed), pair, few=self.few(method))
            for name, pair in self.pairs.items()
            for seed in self.seeds
            for method in self.methods
        }

    def values(self) -> dict[str, Any]:
        """What `load_suite` reads the same suite from, wherever the file lies."""
        pairs = {}
        for name, pair in self.pairs.items():
            changed = {item.name for item in dataclasses.fields(Pair) if getattr(pair, item.name) != item.default}
            pairs[name] = {key: value for key, value in to_mapping(pair).items() if key in changed}
        return {
            "seeds": list(self.seeds),
            "validators": self.validators,
            "arrays": self.arrays,
            "pairs": pairs,
            "methods": self.methods,
        }


def load_suite(path: Path) -> Suite:
    """Read and check a whole suite, every run's options with it. Raises UsageError."""
    values = read_mapping(path)
    for key in values:
        if key not in ("seeds", "settings", "validators", "arrays", "pairs", "methods"):
            known = "arrays, methods, pairs, seeds, settings, validators"
            raise UsageError("unknown_key", key=key, known=known)
    seeds, settings = values.get("seeds"), values.get("settings") or {}
    if (
        not isinstance(seeds, list)
        or not seeds
        or len(set(seeds)) < len(seeds)
        or any(type(x) is not int for x in seeds)
    ):
        raise UsageError("suite_lacks", path=path, key="seeds")
    if not isinstance(settings, dict):
        raise UsageError("suite_lacks", path=path, key="settings")
    for key in ("validators", "arrays"):
        if not isinstance(values.get(key, False), bool):
            raise UsageError("wrong_value", key=key, value=values[key], wanted="true or false")
    for key in ("pairs", "methods"):
        if not isinstance(values.get(key), dict) or not values[key]:
            raise UsageError("suite_lacks", path=path, key=key)
        for name, part in values[key].items():
            if not _names_a_folder(str(name)):
                raise UsageError("suite_name", path=path, name=str(name))
            if part is not None and not isinstance(part, dict):
                raise UsageError("suite_lacks", path=path, key=f"{key}: {name}")
    suite = Suite(
        seeds=tuple(seeds),
        pairs={str(name): _pair(str(name), pair or {}, path.parent) for name, pair in values["pairs"].items()},
        methods={str(name): {**settings, **(method or {})} for name, method in values["methods"].items()},
        **{key: values[key] for key in ("validators", "arrays") if key in values},
    )
    for name, method in suite.methods.items():
        for key in GIVEN:
            if key in method:
                raise UsageError("suite_gives", path=path, name=name, key=key)
        if type(suite.few(name)) is not int or suite.few(name) < 0:
            raise UsageError("option_range", key=f"{name}.few", value=suite.few(name), range="0 or more")
        for seed in suite.seeds:
            suite.config(name, seed)
    return suite


def _names_a_folder(name: str) -> bool:
    """With room for the hash and the endings that are put behind it, on every file system."""
    plain = name.strip() and not name.startswith(".") and not {"/", "\\"} & set(name) and name.isprintable()
    return bool(plain) and len(name.encode()) <= MOST_BYTES


def hash_of(config: Config, pair: Pair, leave_out: tuple[str, ...] = (), few: int = 0) -> str:
    """Of everything that a run depends on but the images: the same wherever they lie."""
    ignored = (*GIVEN, *leave_out) if few else (*GIVEN, *leave_out, "few_share")
    values = {key: value for key, value in to_mapping(config).items() if key not in ignored}
    if few and config.few_share is None and config.share_of_few(few) == LEAST_FEW_SHARE:
        values["few_share"] = LEAST_FEW_SHARE  # as it was by default for any number
    further: dict[str, Any] = {"few": few} if few else {}
    if "method" in values:
        if "knobs" in values:
            values["knobs"] = _knobs(config)
        if own := _own(config):
            further["own"] = own
        if config.method == AUTO:
            further["methods"] = {single.method: [_knobs(single), _own(single)] for single in single_methods(config)}
    return _short_hash({"pair": described(pair), "config": values, "seed": config.seed, **further})


def _knobs(config: Config) -> dict[str, Any]:
    """The method's knobs, without those that came later and have the value that changes nothing."""
    knobs = to_mapping(config).get("knobs") or {}
    return {key: value for key, value in knobs.items() if key not in LATER or value != LATER[key]}


def _own(config: Config) -> dict[str, float]:
    """What the method's class says of how it is trained, where that is not as usual."""
    method = METHODS.get(config.method, Method)
    own = {key: getattr(method, key) for key in ("encoder_rate", "momentum")}
    return own if own != {key: getattr(Method, key) for key in own} else {}


def described(pair: Pair) -> dict[str, Any]:
    """A pair with the names of its folders, and with what its files say."""
    values = to_mapping(pair)
    for key in ("source", "target"):
        values[key] = [Path(place).name for place in values[key]]
    for key in ("photographed", "masks"):
        values[key] = values[key] and Path(values[key]).name
    values["classes"] = pair.classes and load_classes(pair.classes).holders
    source, shift = load_lines(pair.synthetic or pair.shift)
    values["shift"] = shift.record()
    if pair.synthetic and source != Shift():
        values["source"] = source.record()
    values["synthetic"] = bool(pair.synthetic)
    for key in ("absent", "unknown"):
        if not values[key]:
            del values[key]
    return values


def hash_of_pair(pair: Pair) -> str:
    """Of what is made ready for a pair: of its description and of where its images lie."""
    places = {key: value for key, value in to_mapping(pair).items() if value or key not in ("absent", "unknown")}
    return _short_hash([described(pair), places])


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def _pair(name: str, values: dict[str, Any], folder: Path) -> Pair:
    kinds = [kind for kind in _KINDS if values.get(kind)]
    if len(kinds) != 1 or ("source" in kinds and not values.get("target")):
        raise UsageError("pair_kind", name=name)
    for key in values:
        if key not in _KINDS[kinds[0]]:
            raise UsageError("unknown_key", key=f"{name}.{key}", known=", ".join(sorted(_KINDS[kinds[0]])))
    pair = from_mapping(Pair, {key: _placed(key, value, folder) for key, value in values.items()}, prefix=f"{name}.")
    if not 0 <= pair.flipped <= 1:
        raise UsageError("option_range", key=f"{name}.flipped", value=pair.flipped, range="0 to 1")
    if pair.masks and pair.tile is None:
        raise UsageError("pair_masks", name=name)
    described(pair)  # reads its files
    return pair


def _placed(key: str, value: Any, folder: Path) -> Any:
    """A value of a pair; what is a path, made absolute."""
    if isinstance(value, list):
        return [_placed(key, item, folder) for item in value]
    path = key in ("source", "target", "photographed", "masks", "classes")
    path = path or (key in ("synthetic", "shift") and str(value).endswith((".yaml", ".yml")))
    if not path or not isinstance(value, str):
        return value
    expanded = os.path.expandvars(value)
    if "$" in expanded:
        raise UsageError("suite_variable", value=value)
    return str((folder / expanded).resolve())
