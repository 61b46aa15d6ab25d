"""Batch normalization across two lines.

joint: one pass over both lines, statistics of the mixture; methods that show the lines in turn, such as MCD, or that
label target images first, normalize those passes by their own batches. separate: one pass a line, each normalized by
its own batch, running statistics of both together. domain-specific: each line has batch normalization layers of its own
(Chang et al., Domain-Specific Batch Normalization, CVPR 2019); the inspector keeps the target's.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steelshift.errors import UsageError

Normalization = Literal["joint", "separate", "domain-specific"]
Line = Literal["source", "target"]


class LineBatchNorm(nn.Module):
    """Batch normalization with one layer a line; `line` says which is in use."""

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__()
        self.source = layer
        self.target = copy.deepcopy(layer)
        self.line: Line = "source"

    def forward(self, values: Tensor) -> Tensor:
        return self.source(values) if self.line == "source" else self.target(values)


def arrange(encoder: nn.Module, kind: Normalization, name: str) -> None:
    """Give an encoder the layers that `kind` needs. Raises UsageError where it has no batch normalization."""
    if kind == "joint":
        return
    layers = [(key, module) for key, module in encoder.named_modules() if isinstance(module, _BatchNorm)]
    if not layers:
        raise UsageError("no_normalization", kind=kind, encoder=name)
    if kind == "domain-specific":
        for key, layer in layers:
            parent, _, last = key.rpartition(".")
            setattr(encoder.get_submodule(parent), last, LineBatchNorm(layer))


def begin_target(encoder: nn.Module) -> None:
    """Give the target's line-wise layers what the source's have learned: adaptation begins from both alike."""
    for module in encoder.modules():
        if isinstance(module, LineBatchNorm):
            module.target.load_state_dict(module.source.state_dict())


def use_line(encoder: nn.Module, line: Line) -> None:
    for module in encoder.modules():
        if isinstance(module, LineBatchNorm):
            module.line = line


def encode_both(encoder: nn.Module, source: Tensor, target: Tensor, kind: Normalization) -> tuple[Tensor, Tensor]:
    """Features of a source and a target batch: in one pass where the normalization is joint."""
    if kind == "joint":
        both = encoder(torch.cat([source, target]))
        return both[: len(source)], both[len(source) :]
    use_line(encoder, "source")
    of_source = encoder(source)
    use_line(encoder, "target")
    of_target = encoder(target)
    return of_source, of_target


def settle(encoder: nn.Module, line: Line = "target") -> None:
    """Replace line-wise layers by those of one line: what the inspector keeps."""
    for key, module in list(encoder.named_modules()):
        if isinstance(module, LineBatchNorm):
            parent, _, last = key.rpartition(".")
            setattr(encoder.get_submodule(parent), last, getattr(module, line))
