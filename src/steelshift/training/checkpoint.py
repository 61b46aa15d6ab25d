"""Checkpoints: weights and optimizer state as safetensors, the rest as JSON with a checksum. Nothing is unpickled.

The weights are written first and their JSON last, each atomically; a checkpoint without its JSON does not exist. The
one before is kept, so a save that is killed halfway, or a file that rots, costs one interval.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from steelshift.files import explain_full_or_readonly, write_json
from steelshift.inspection.sums import sha256
from steelshift.methods import Method
from steelshift.tensors import write_tensors

KEPT = 2


@dataclass(frozen=True)
class Progress:
    """Where a phase stands: the next step to take, and what failures did to the learning rate."""

    step: int = 0
    lr_scale: float = 1.0
    rollbacks: int = 0


class Checkpoints:
    """The checkpoints of one phase in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, progress: Progress, method: Method, optimizers: dict[str, Optimizer]) -> None:
        """Write a checkpoint and drop all but the one before. Raises RunFailed; what was there stays whole."""
        weights, record = self._paths(progress.step)
        digest = write_tensors(weights, _tensors(method, optimizers))
        write_json(record, {**vars(progress), "sha256": digest})
        with explain_full_or_readonly(self.folder):
            for _, old_weights, old_record in self._records()[:-KEPT]:
                old_record.unlink()
                old_weights.unlink(missing_ok=True)

    def load(self, method: Method, optimizers: dict[str, Optimizer]) -> Progress | None:
        """Restore the newest whole checkpoint, or None where there is none; clears what a killed save left."""
        if not self.folder.is_dir():
            return None
        with explain_full_or_readonly(self.folder):
            for leftover in self.folder.glob("*.tmp"):
                leftover.unlink()
        for record, weights, _ in reversed(self._records()):
            try:
                whole = sha256(weights) == record["sha256"]
            except OSError:
                continue
            if whole:
                _restore(load_file(weights), method, optimizers)
                return Progress(record["step"], record["lr_scale"], record["rollbacks"])
        return None

    def _paths(self, step: int) -> tuple[Path, Path]:
        stem = self.folder / f"step-{step:08d}"
        return stem.with_suffix(".safetensors"), stem.with_suffix(".json")

    def _records(self) -> list[tuple[dict, Path, Path]]:
        """Oldest first: record, path of the weights, path of the record. Unreadable records do not count."""
        found = []
        for path in sorted(self.folder.glob("step-*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(record, dict) and record.keys() >= {"step", "lr_scale", "rollbacks", "sha256"}:
                found.append((record, path.with_suffix(".safetensors"), path))
        return found


def _tensors(method: Method, optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
    tensors = {f"method/{key}": value for key, value in method.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, parameter in enumerate(parameters_of(optimizer)):
            for key, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"optimizer/{name}/{index}/{key}"] = torch.as_tensor(value)
    return tensors


def _restore(tensors: dict[str, Tensor], method: Method, optimizers: dict[str, Optimizer]) -> None:
    method.load_state_dict(
        {key.removeprefix("method/"): value for key, value in tensors.items() if key.startswith("method/")}
    )
    for optimizer in optimizers.values():
        optimizer.state.clear()
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, name, index, entry = key.split("/")
            parameter = parameters_of(optimizers[name])[int(index)]
            # Copied from the file's own memory; moments in the layout of the parameter, as the optimizer made them.
            like = parameter if value.shape == parameter.shape else value
            optimizers[name].state[parameter][entry] = torch.empty_like(like, device=parameter.device).copy_(value)


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
