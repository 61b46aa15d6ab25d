"""Sums that need more than bf16's eight bits, in the middle of training in bf16."""

import functools
from collections.abc import Callable

import torch


def exact(function: Callable) -> Callable:
    """Run a function of tensors outside of autocast, so that its products keep the type of its arguments."""

    @functools.wraps(function)
    def outside(*arguments: object, **options: object) -> object:
        kinds = map(_device, (*arguments, *options.values()))
        kind = next(kind for kind in kinds if kind)
        if not torch.is_autocast_enabled(kind):
            return function(*arguments, **options)
        with torch.autocast(kind, enabled=False):
            return function(*arguments, **options)

    return outside


def _device(argument: object) -> str | None:
    if isinstance(argument, torch.Tensor):
        return argument.device.type
    return _device(argument[0]) if isinstance(argument, list | tuple) and argument else None
