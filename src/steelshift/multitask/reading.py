"""What each task takes from the layers of a network, read by gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelshift.multitask.relatedness import taken
from steelshift.multitask.sharing import importance


@dataclass(frozen=True)
class Reading:
    importance: list[Tensor]
    """By layer (T, C): what each channel gives to each task."""
    maps: Tensor
    """(T, N, C, H, W): what each task takes from the chosen layer, activation times gradient of its score."""


def read(
    layers: Sequence[nn.Module],
    chosen: nn.Module,
    logits: Callable[[Tensor], Tensor],
    columns: Sequence[slice],
    images: Tensor,
) -> Reading:
    """Run images through a network in evaluation mode and see what reaches each task's strongest answers.

    layers: modules whose outputs (N, C, H, W) or (N, C) are read. chosen: one more, or one of them, whose maps are
    kept. logits: images (N, ...) to logits (N, K) by way of these modules; columns: of these, by task.
    """
    watched = list(dict.fromkeys([*layers, chosen]))
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[module] = output

    hooks = [module.register_forward_hook(keep) for module in watched]
    try:
        with torch.enable_grad():
            found = logits(images.clone().requires_grad_())
            scores = [found[:, part].amax(1).sum() for part in columns]
            gradients = [
                torch.autograd.grad(
                    score, [outputs[m] for m in watched], retain_graph=True, allow_unused=True, materialize_grads=True
                )
                for score in scores
            ]
    finally:
        for hook in hooks:
            hook.remove()
    of_task = [
        {m: taken(outputs[m].detach(), each) for m, each in zip(watched, parts, strict=True)} for parts in gradients
    ]
    return Reading(
        [torch.stack([importance(_four(parts[m])) for parts in of_task]) for m in layers],
        torch.stack([parts[chosen] for parts in of_task]),
    )


def _four(values: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, 1); maps stay as they are."""
    return values if values.ndim == 4 else values[:, :, None, None]
