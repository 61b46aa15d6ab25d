"""An exported inspector: a folder of graphs that runs without torch.

exported/  export.json  model-PRECISION.onnx  openvino-PRECISION.xml and .bin  golden/  MODEL_CARD.md  SHA256SUMS
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steelshift.data.decode import decode
from steelshift.errors import ArtifactRefused, UsageError
from steelshift.inspection.runtimes import Run, open_graph
from steelshift.inspection.specification import Specification, score_each
from steelshift.inspection.sums import check_sums

RECORD = "export.json"
SCHEMA = 1
TOLERANCE = {"fp32": 1e-3}
"""Largest difference of a golden probability that still counts as the same graph on another processor."""
CLEAR = 0.2
"""In bf16 and int8, which processors compute differently, a golden example must keep a class that leads by so much."""


@dataclass(frozen=True)
class Exported:
    """A judge whose network is a graph in one of the runtimes."""

    specification: Specification
    run: Run

    def score(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        return self.run(groups)


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
        exported = Exported(specification, open_graph(*kind, [folder / name for name in files_of(*kind)]))
        _check_golden(exported, folder, entry)
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


def _check_golden(exported: Exported, folder: Path, entry: dict[str, Any]) -> None:
    expected = np.array(entry["golden"])
    found = score_each(exported, golden(folder))
    if not np.abs(found - expected).max() <= TOLERANCE.get(entry["precision"], 1.0):
        raise ValueError("golden examples no longer score as they did")
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > CLEAR
    if (expected.argmax(1) != found.argmax(1))[clear].any():
        raise ValueError("golden examples no longer have the class that they had")
