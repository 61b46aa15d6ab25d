"""An inspector from its folder, in whatever form it lies there. No torch here, and none for an exported one."""

import json
from pathlib import Path

from threadpoolctl import threadpool_limits

from steelshift.errors import UsageError
from steelshift.inspection import exported, runtimes
from steelshift.inspection.specification import Judge
from steelshift.inspection.sums import SUMS, sha256


def place_of(run: Path) -> Path:
    """The folder of the inspector of a run, or of an inspector itself."""
    run = Path(run)
    return run / "inspector" if (run / "inspector").is_dir() else run


def of_tasks(run: Path) -> bool:
    """Whether a folder holds an inspector of declared tasks, as far as can be read."""
    try:
        return bool(json.loads((place_of(run) / "inspector.json").read_text(encoding="utf-8"))["heads"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_inspector(
    folder: Path, runtime: str | None = None, precision: str | None = None, threads: int | None = None
) -> Judge:
    """The inspector of a folder, of a run, or of an exported folder, which alone has a choice of runtimes.

    threads: how many this process computes with; None leaves it to the runtime.

    Raises ArtifactRefused, UsageError.
    """
    if threads:
        threadpool_limits(threads, user_api="blas")
    if exported.is_exported(folder):
        if runtime == "torch":
            raise UsageError("not_torch", path=folder)
        if threads:
            runtimes.set_threads(threads)
        return exported.load(folder, runtime, precision)
    if runtime not in (None, "torch") or precision not in (None, "fp32"):
        raise UsageError("no_runtime", path=folder)
    import torch

    from steelshift.inspection.inspector import load

    if threads:
        torch.set_num_threads(threads)
    return load(folder)


def fingerprint(folder: Path) -> str:
    """sha256 of the list of all files' hashes: one value for weights, calibration and graphs. Raises OSError."""
    return sha256(place_of(folder) / SUMS)
