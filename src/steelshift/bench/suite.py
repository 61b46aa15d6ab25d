"""A suite: which pairs of lines, which methods, which seeds. Read from YAML.

    seeds: [0, 1, 2]
    settings: {size: 112, steps: 600}          # options of `fit` for every run
    pairs:
      drawn, middle: {synthetic: middle, images: 700}
      two mills: {source: [$DATA/one], target: [$DATA/other], classes: two-mills.yaml}
      new camera: {photographed: $DATA/one, shift: middle}
    methods:
      dann: {method: dann}
      plain words: {method: iadsa, knobs: {embedding: none}, augmentation: strong}

Paths are relative to the file and may name environment variables.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelshift.errors import UsageError
from steelshift.training.config import Config, from_mapping, read_mapping, resolve, to_mapping

GIVEN = ("source", "target", "classes", "out", "seed", "cache")
"""Options of `fit` that the suite gives to each run itself."""


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
    """YAML map from class name to folder names."""
    tile: int | None = None
    """Side in pixels of tiles that both lines are cut into."""
    masks: Path | None = None
    """For tiles: folder of mask folders, named as those of the images."""
    flipped: float = 0.0
    """Share of source labels that are replaced by another class's, 0 to 1."""

    def __post_init__(self) -> None:
        given = [bool(self.synthetic), self.photographed is not None, bool(self.source and self.target)]
        if sum(given) != 1:
            raise UsageError("pair_kind")
        if not 0 <= self.flipped <= 1:
            raise UsageError("option_range", key="flipped", value=self.flipped, range="0 to 1")


@dataclass(frozen=True)
class Suite:
    seeds: tuple[int, ...]
    pairs: dict[str, Pair]
    methods: dict[str, dict[str, Any]]
    """Options of `fit` by name of the row, with the suite's settings filled in."""

    def config(self, method: str, seed: int, **given: Any) -> Config:
        """The resolved config of one run. Raises UsageError."""
        config = from_mapping(Config, self.methods[method], seed=seed, **given)
        return resolve(config)


def load_suite(path: Path) -> Suite:
    """Read and check a whole suite, every run's options with it. Raises UsageError."""
    values = read_mapping(path)
    for key in values:
        if key not in ("seeds", "settings", "pairs", "methods"):
            raise UsageError("unknown_key", key=key, known="methods, pairs, seeds, settings")
    for key in ("seeds", "pairs", "methods"):
        if not isinstance(values.get(key), list if key == "seeds" else dict) or not values[key]:
            raise UsageError("suite_lacks", path=path, key=key)
    for name in (*values["pairs"], *values["methods"]):
        if not str(name).strip() or str(name).startswith(".") or {"/", "\\"} & set(str(name)):
            raise UsageError("suite_name", path=path, name=name)
    settings = values.get("settings") or {}
    suite = Suite(
        seeds=tuple(values["seeds"]),
        pairs={
            str(name): from_mapping(Pair, _placed(pair or {}, path.parent), prefix=f"{name}.")
            for name, pair in values["pairs"].items()
        },
        methods={str(name): {**settings, **(method or {})} for name, method in values["methods"].items()},
    )
    for name, method in suite.methods.items():
        for key in GIVEN:
            if key in method:
                raise UsageError("suite_gives", path=path, name=name, key=key)
        for seed in suite.seeds:
            suite.config(name, seed, source=(), target=(), out=Path())
    return suite


def hash_of(config: Config, pair: Pair, leave_out: tuple[str, ...] = ()) -> str:
    """Of everything that a run depends on but where its files lie."""
    values = {key: value for key, value in to_mapping(config).items() if key not in (*GIVEN, *leave_out)}
    described = {"pair": to_mapping(pair), "config": values, "seed": config.seed}
    return hashlib.sha256(json.dumps(described, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def _placed(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths of a pair made absolute."""
    kinds = {item.name: item.type for item in dataclasses.fields(Pair)}

    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(item) for item in value]
        if not isinstance(value, str):
            return value
        expanded = os.path.expandvars(value)
        if "$" in expanded:
            raise UsageError("suite_variable", value=value)
        return str((folder / expanded).resolve())

    placed = {}
    for key, value in values.items():
        is_path = "Path" in str(kinds.get(key, ""))
        is_file = key in ("synthetic", "shift") and str(value).endswith((".yaml", ".yml"))
        placed[key] = place(value) if is_path or is_file else value
    return placed
