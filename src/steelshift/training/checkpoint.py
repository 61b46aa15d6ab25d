"""Checkpoints: weights and optimizer state as safetensors, the rest as JSON with a checksum. Nothing is unpickled.

The weights are written first and their JSON last, each atomically; a checkpoint without its JSON does not exist. The
one before is kept, so a save that is killed halfway, or a file that rots, costs one interval.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.optim import Optimizer

from steelshift.files import explain_full_or_readonly, write_bytes, write_json
from steelshift.methods import Method

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
        content = safetensors.torch.save(_tensors(method, optimizers))
        weights, record = self._paths(progress.step)
        write_bytes(weights, content)
        write_json(record, {**vars(progress), "sha256": hashlib.sha256(content).hexdigest()})
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
                content = weights.read_bytes()
            except OSError:
                continue
            if hashlib.sha256(content).hexdigest() == record["sha256"]:
                _restore(safetensors.torch.load(content), method, optimizers)
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
    tensors = {f"method/{key}": value.contiguous() for key, value in method.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, parameter in enumerate(parameters_of(optimizer)):
            for key, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"optimizer/{name}/{index}/{key}"] = torch.as_tensor(value).contiguous()
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
            if value.shape == parameter.shape:  # in the layout of the parameter, as the optimizer made it
                value = torch.empty_like(parameter).copy_(value)
            value = value.to(parameter.device)
            optimizers[name].state[parameter][entry] = value


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
