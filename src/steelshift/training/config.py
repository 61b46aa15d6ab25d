"""Everything that a run depends on, as one frozen dataclass; recipes are functions that return values for it."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from steelshift.data.augment import Augmentation
from steelshift.data.stream import Sampler
from steelshift.errors import UsageError
from steelshift.files import read_yaml
from steelshift.methods import METHODS
from steelshift.nn.encoders import Feature
from steelshift.nn.normalization import Normalization
from steelshift.nn.sharing import SCHEDULE
from steelshift.nn.sharing import Kind as Sharing
from steelshift.training.precision import Precision

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "inverse", "constant"]
Select = Literal[
    "last", "source_validation", "entropy", "information_maximization", "bnm", "snd", "dev", "devn", "class_ami",
    "mixval", "circular",
]  # fmt: skip
LEAST_FEW_SHARE = 0.25
"""What a few labelled target images fill of a labelled batch, however few they are."""
VALIDATORS = tuple(name for name in typing.get_args(Select) if name != "last")
"""Rules that score a checkpoint by what it answers."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of `fit`; each is also a key of the config file. Options left at None come from the recipe."""

    source: tuple[Path, ...]
    """Labelled images of the source line: class folders, or manifests (CSV, parquet)."""
    target: tuple[Path, ...] = ()
    """Images of the target line: any folder tree, or manifests. Labels in it are read only to judge. With declared
    tasks there need be none."""
    out: Path
    """Folder of the run; new, or with --resume an earlier one."""
    tasks: Path | None = None
    """YAML file of tasks that one network learns together; without it the one task is the class."""
    sharing: Sharing = "progressive"
    """How the networks of several tasks share channels: progressive, hard, cross_stitch or separate."""
    ratios: tuple[float, ...] = SCHEDULE
    """Of progressive sharing, the share of shared channels in layers 1, 2, ...; deeper ones take the last."""
    classes: Path | None = None
    """YAML map from class name to the folder names that hold it; without it the folder names are the classes."""
    target_labels: Path | None = None
    """CSV with the columns label and path (or id) of a few target images: they train too, and are never judged by."""
    few_share: float | None = None
    """Share of each labelled batch that those few fill, above 0; 1 leaves the source images out. Without it
    n / (n + 15) for n of them a class, a quarter at least."""
    method: str = "bridge"
    """How to adapt: bridge, iadsa, dann ... (a wrong name lists all), or auto: several, the best by `select` (by
    source_validation where that is last). With declared tasks: multitask, or source_only."""
    encoder: str = "alexnet"
    """alexnet, or any model of torchvision or timm by name."""
    size: int = 112
    """Side in pixels to which images are brought."""
    steps: int = 600
    """Steps of adaptation (S3 to S5)."""
    pretrain_steps: int = 300
    """Steps of training on the source line before (S1)."""
    save_every: int = 200
    """Steps between checkpoints."""
    seed: int = 0
    """Everything random follows from it."""
    cache: Path | None = None
    """Folder of decoded images, which several runs may share; by default within the run."""
    recipe: Literal["scratch", "literature"] = "scratch"
    """Preset: scratch trains an encoder from random weights; literature is CDAN's recipe for pretrained ones."""
    feature: Feature = "conv_bottleneck"
    """What the feature of AlexNet is."""
    weights: str | None = None
    """Pretrained weights of the encoder: a file, package (tf_efficientnet_lite0 alone), or torchvision
    to download."""
    normalization: Normalization = "joint"
    """Batch normalization across the lines."""
    augmentation: Augmentation | None = None
    """none, upright (slight crops, light), plain (crops, flips, light) or strong (also gamma, polarity, lighting
    gradient, noise). Declared tasks may ask where on an image something is: by default they are trained upright."""
    batch: int | None = None
    """Images a line and step."""
    optimizer: Optimizer | None = None
    """sgd with momentum .9, or adamw."""
    lr: float | None = None
    """Learning rate of new layers."""
    encoder_lr: float | None = None
    """Factor on the learning rate of encoders, but of a bottleneck that is new behind pretrained layers."""
    weight_decay: float | None = None
    """Weight decay."""
    schedule: Schedule | None = None
    """Learning rate over the steps: cosine to 0 after a short warm-up, inverse (1 + .001 i)^-.75, or constant."""
    clip: float | None = None
    """Largest norm of the gradient of each module."""
    sampler: Sampler = "balanced"
    """How source batches are drawn: balanced over classes, or random."""
    equal_numbers: bool = True
    """Whether both lines give as many images as the smaller one has."""
    train_ratio: float = 0.8
    """Share of each line's images that is not test."""
    val_ratio: float = 0.125
    """Share of those that is validation (calibration and choice, on the source line)."""
    select: Select = "information_maximization"
    """Which checkpoint becomes the inspector; no rule reads a target label. Rules are in selection/validators.py."""
    candidates: int = 10
    """Checkpoints between which that rule chooses, evenly spaced."""
    oracle: bool = True
    """Whether to train the oracle too, where target labels are given for judging."""
    review_rate: float = 0.05
    """Share of images of the target line that the inspector sends to a person, below 1; counted on unlabelled ones."""
    bit_depth: int | None = None
    """Bits of images stored with 16 bit a pixel; by default found from each file."""
    device: str = "auto"
    """auto, cpu, cuda or another name that torch knows."""
    precision: Precision = "auto"
    """Number format of training; auto takes bf16 where the processor multiplies it in hardware."""
    knobs: Any = field(default_factory=dict)
    """Knobs of the method."""

    def __post_init__(self) -> None:
        for key in ("size", "steps", "save_every", "candidates"):
            _check(key, getattr(self, key), getattr(self, key) >= 1, "1 or more")
        _check("pretrain_steps", self.pretrain_steps, self.pretrain_steps >= 0, "0 or more")
        _check("seed", self.seed, self.seed >= 0, "0 or more")
        for key in ("train_ratio", "val_ratio"):
            _check(key, getattr(self, key), 0 < getattr(self, key) < 1, "between 0 and 1")
        _check("review_rate", self.review_rate, 0 <= self.review_rate < 1, "0 or more, below 1")
        _check("few_share", self.few_share, self.few_share is None or 0 < self.few_share <= 1, "above 0, at most 1")
        _check("batch", self.batch, self.batch is None or self.batch >= 2, "2 or more")
        _check("lr", self.lr, self.lr is None or self.lr > 0, "above 0")
        _check("weight_decay", self.weight_decay, self.weight_decay is None or self.weight_decay >= 0, "0 or more")
        _check("bit_depth", self.bit_depth, self.bit_depth is None or 8 <= self.bit_depth <= 16, "8 to 16")
        _check("clip", self.clip, self.clip is None or self.clip > 0, "above 0")

    def share_of_few(self, per_class: float) -> float:
        """`few_share`, resolved for so many labelled target images a class (docs/results/development.md)."""
        grown = max(LEAST_FEW_SHARE, per_class / (per_class + 15))
        return grown if self.few_share is None else self.few_share


def _check(key: str, value: object, right: bool, words: str) -> None:
    if not right:
        raise UsageError("option_range", key=key, value=value, range=words)


def scratch() -> dict[str, Any]:
    """An encoder without normalization layers from random weights: Adam, a warm-up, clipping."""
    return {
        "augmentation": "plain",
        "batch": 32,
        "optimizer": "adamw",
        "lr": 7e-4,
        "encoder_lr": 1.0,
        "weight_decay": 1e-3,
        "schedule": "cosine",
        "clip": 1.0,
    }


def literature() -> dict[str, Any]:
    """CDAN's recipe for pretrained encoders (Long et al., NeurIPS 2018): SGD 1e-2, encoders a tenth."""
    return {
        "augmentation": "plain",
        "batch": 36,
        "optimizer": "sgd",
        "lr": 1e-2,
        "encoder_lr": 0.1,
        "weight_decay": 5e-4,
        "schedule": "inverse",
        "clip": 10.0,
    }


FOR_TASKS = ("last", "source_validation", "entropy", "information_maximization", "bnm", "snd")
"""Rules of choice that several tasks can be meaned over."""


def check_tasks(config: Config) -> None:
    """Refuse options that do not go with declared tasks, or without them. Raises UsageError."""
    if config.tasks is None:
        if not config.target:
            raise UsageError("no_target")
        return
    if config.method == AUTO or not METHODS[config.method].many_tasks or config.method == "oracle":
        names = ", ".join(name for name in METHODS if METHODS[name].many_tasks and name != "oracle")
        raise UsageError("method_one_task", method=config.method, known=names)
    if config.classes is not None:
        raise UsageError("not_with_tasks", key="classes")
    if config.target_labels is not None:
        raise UsageError("few_with_tasks")
    if config.sharing != "progressive" and config.ratios != SCHEDULE:
        raise UsageError("ratios_unused", sharing=config.sharing)
    if config.select not in FOR_TASKS:
        raise UsageError("wrong_value", key="select", value=config.select, wanted=", ".join(FOR_TASKS))
    if not config.target and config.normalization == "domain-specific":
        raise UsageError("wrong_value", key="normalization", value=config.normalization, wanted="joint or separate")


AUTO = "auto"
"""In place of a method: train several, and choose between them without target labels."""


@dataclass(frozen=True)
class AutoKnobs:
    methods: tuple[str, ...] = ("dann", "bridge")
    """Methods that are trained and compared, each with its default knobs; source only is always among them."""

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS or name == "oracle":
                raise UsageError(
                    "unknown_method", name=name, known=", ".join(key for key in METHODS if key != "oracle")
                )


def knobs_of(method: str) -> type:
    """The dataclass of a method's knobs. Raises UsageError for an unknown method."""
    if method == AUTO:
        return AutoKnobs
    if not isinstance(method, str) or method not in METHODS:
        raise UsageError("unknown_method", name=method, known=", ".join([*METHODS, AUTO]))
    return METHODS[method].Knobs


def resolve(config: Config) -> Config:
    """Fill in what the recipe gives, and turn the knobs into the method's dataclass."""
    knobs_of(config.method)  # an unknown method is refused
    check_tasks(config)
    recipe = {"scratch": scratch, "literature": literature}[config.recipe]()
    if config.tasks is not None:
        recipe["augmentation"] = "upright"  # a task may ask where a defect lies
    missing = {key: value for key, value in recipe.items() if getattr(config, key) is None}
    knobs = config.knobs
    if not dataclasses.is_dataclass(knobs):
        knobs = from_mapping(knobs_of(config.method), knobs, prefix="knobs.")
    return dataclasses.replace(config, **missing, knobs=knobs)


def from_mapping(kind: type, values: dict[str, Any], *, prefix: str = "", **defaults: Any) -> Any:
    """A dataclass from the keys of a YAML mapping. Raises UsageError for an unknown key or a wrong value."""
    if not isinstance(values, dict):
        raise UsageError("wrong_value", key=prefix.rstrip("."), value=values, wanted="a map of keys")
    hints = typing.get_type_hints(kind)
    known = {item.name for item in fields(kind)}
    for key in values:
        if key not in known:
            raise UsageError("unknown_key", key=prefix + str(key), known=", ".join(sorted(known)))
    converted = {key: _convert(hints[key], value, prefix + key) for key, value in values.items()}
    return kind(**(defaults | converted))


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys of a YAML config file. Raises UsageError."""
    try:
        values = read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError("config_unreadable", path=path, why=" ".join(str(error).split())[:160]) from error
    if not isinstance(values, dict):
        raise UsageError("config_unreadable", path=path, why="not a map of keys")
    return values


def to_mapping(config: Any) -> dict[str, Any]:
    """Plain YAML values of a config."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value

    return plain(config)


def _convert(hint: Any, value: Any, key: str) -> Any:
    """A YAML value as the type that a field declares."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for option in (option for option in arguments if option is not type(None)):
            try:
                return _convert(option, value, key)
            except UsageError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) == len(value):
            return tuple(_convert(item, entry, key) for item, entry in zip(inner, value, strict=True))
    elif origin is tuple and arguments[-1] is Ellipsis and isinstance(value, str):
        return (_convert(arguments[0], value, key),)
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            pass
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    raise UsageError("wrong_value", key=key, value=value, wanted=_words(hint))


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_words(item) for item in typing.get_args(hint) if item is not type(None))
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
