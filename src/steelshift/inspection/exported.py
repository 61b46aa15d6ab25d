"""An exported inspector: a folder of graphs that runs without torch.

exported/  export.json  model-PRECISION.onnx  openvino-PRECISION.xml and .bin  heat.onnx  reference.safetensors  golden/
           MODEL_CARD.md  SHA256SUMS
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.data.decode import decode
from steelshift.errors import ArtifactRefused, UsageError
from steelshift.inspection import reference
from steelshift.inspection.reference import Reference
from steelshift.inspection.runtimes import FEATURES, MAPS, PROBABILITIES, Run, open_graph, open_heat
from steelshift.inspection.specification import Answer, Specification, answer_each
from steelshift.inspection.sums import check_sums

RECORD = "export.json"
SCHEMA = 2
HEAT = "heat.onnx"
"""The graph of heat maps, the same for every runtime and precision."""
TOLERANCE = {"fp32": 1e-3}
"""Largest difference of a golden probability that still counts as the same graph on another processor."""
CLEAR = 0.2
"""In bf16 and int8, which processors compute differently, a golden example must keep a class that leads by so much."""


@dataclass
class Exported:
    """A judge whose network is a graph in one of the runtimes. Its graphs are opened when they are first asked."""

    specification: Specification
    folder: Path
    runtime: str
    precision: str
    reference: Reference | None = None
    identity: str = ""
    whole: bool = False
    """The files alone, as programs run them that have nothing of ours."""

    def __post_init__(self) -> None:
        self._runs: dict[tuple[str, ...], Run] = {}
        self._heat: Callable[[np.ndarray], np.ndarray] | None = None
        self._opening = threading.Lock()

    def score(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        return self._run(groups, PROBABILITIES)[0]

    def answer(self, groups: Sequence[np.ndarray], *, maps: bool = False) -> Answer:
        """As `score`, with all that a row tells. Raises UsageError for maps that the graph does not give."""
        if maps and not (self.folder / HEAT).is_file():
            raise UsageError("no_heat_maps", path=self.folder)
        return Answer(*self._run(groups, PROBABILITIES, FEATURES, *([MAPS] if maps else [])))

    def heat(self, maps: np.ndarray) -> np.ndarray:
        with self._opening:
            if self._heat is None:
                self._heat = open_heat(self.runtime, self.folder / HEAT)
        return self._heat(maps)

    def _run(self, groups: Sequence[np.ndarray], *gives: str) -> list[np.ndarray]:
        with self._opening:
            if gives not in self._runs:
                files = [self.folder / name for name in files_of(self.runtime, self.precision)]
                self._runs[gives] = open_graph(self.runtime, self.precision, files, gives, whole=self.whole)
        return self._runs[gives](groups)


def is_exported(folder: Path) -> bool:
    return (Path(folder) / RECORD).is_file()


def files_of(runtime: str, precision: str) -> list[str]:
    if runtime == "onnx":
        return [f"model-{precision}.onnx"]
    return [f"openvino-{precision}.xml", f"openvino-{precision}.bin"]


def load(folder: Path, runtime: str | None = None, precision: str | None = None) -> Exported:
    """Read an exported inspector, its plainest graph unless another is named.

    Raises ArtifactRefused for a folder that is not what was written or no longer scores as it did, UsageError where it
    does not hold that graph or the runtime is not installed. Runs nothing that it reads.
    """
    folder = Path(folder)
    try:
        check_sums(folder)
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise ArtifactRefused("inspector_schema", path=folder, found=record["schema"], known=SCHEMA)
        specification = Specification.of(record["inspector"])
        entry = _choose(folder, record["graphs"], runtime, precision)
        kind = entry["runtime"], entry["precision"]
        exported = Exported(specification, folder, *kind, identity=str(record["weights_sha256"]))
        found = _check_golden(exported, folder, entry)
        exported.reference = reference.load(folder, found.features.shape[1], len(specification.classes))
    except (ArtifactRefused, UsageError):
        raise
    except Exception as error:  # files from anywhere, read by large parsers: whatever they raise, it is no use
        why = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise ArtifactRefused("inspector_broken", path=folder, why=why) from error
    return exported


def golden(folder: Path) -> list[np.ndarray]:
    """The golden examples of an inspector or exported folder, uint8 (H, W, C). Raises OSError, ValueError."""
    names = [example["image"] for example in json.loads((folder / "golden" / "expected.json").read_text("utf-8"))]
    return [decode((folder / "golden" / name).read_bytes()).pixels for name in names]


def _choose(folder: Path, graphs: list[dict[str, Any]], runtime: str | None, precision: str | None) -> dict[str, Any]:
    fitting = [
        entry for entry in graphs if runtime in (None, entry["runtime"]) and precision in (None, entry["precision"])
    ]
    if not fitting:
        known = ", ".join(f"{entry['runtime']} {entry['precision']}" for entry in graphs)
        asked = " ".join(word for word in (runtime, precision) if word)
        raise UsageError("not_exported", path=folder, asked=asked, known=known)
    return fitting[0]


def _check_golden(exported: Exported, folder: Path, entry: dict[str, Any]) -> Answer:
    expected = np.array(entry["golden"])
    answer = answer_each(exported, golden(folder))
    found = answer.probabilities
    if not np.abs(found - expected).max() <= TOLERANCE.get(entry["precision"], 1.0):
        raise ValueError("golden examples no longer score as they did")
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > CLEAR
    if (expected.argmax(1) != found.argmax(1))[clear].any():
        raise ValueError("golden examples no longer have the class that they had")
    return answer
