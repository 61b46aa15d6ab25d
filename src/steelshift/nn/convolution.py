"""Three convolutions of an encoder, computed in a form that processors do faster. Same sums, same parameters.

Measured in benchmarks/step.py and benchmarks/multitask.py.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NARROW = 8
"""Widest map, in pixels, whose weight gradient is faster as one matrix product than row by row."""
WIDE = 64
"""Channels a task from which its convolution is computed by itself."""


class GreyStem(nn.Conv2d):
    """The first convolution of a network, on one channel: grey is the same in all three.

    A stride of s is computed as a convolution of stride 1 over s x s neighbours taken as channels; one or three
    channels leave most of a matrix unit idle.
    """

    def __init__(self, first: nn.Conv2d) -> None:
        kernel, stride, padding = first.kernel_size, first.stride, first.padding
        super().__init__(1, first.out_channels, kernel, stride, padding, bias=first.bias is not None)
        with torch.no_grad():
            self.weight.copy_(first.weight.sum(1, keepdim=True))
        if first.bias is not None:
            self.bias = first.bias

    def forward(self, images: Tensor) -> Tensor:
        batch, _, *sides = images.shape
        grown, margins, missing = [], [], []
        for side, kernel, stride, padding in zip(sides, self.kernel_size, self.stride, self.padding, strict=True):
            places = (side + 2 * padding - kernel) // stride + 1
            strides = -(-kernel // stride)  # that the kernel covers
            grown.append(places + strides - 1)
            margins.append((padding, grown[-1] * stride - side - padding))
            missing.append((0, strides * stride - kernel))
        down, across = self.stride
        padded = F.pad(images, (*margins[1], *margins[0]))
        neighbours = padded.view(batch, grown[0], down, grown[1], across).permute(0, 1, 3, 2, 4)
        channels = neighbours.reshape(batch, grown[0], grown[1], down * across).permute(0, 3, 1, 2)
        kernel = F.pad(self.weight, (*missing[1], *missing[0]))
        kernel = kernel.view(self.out_channels, kernel.shape[2] // down, down, kernel.shape[3] // across, across)
        return F.conv2d(channels, kernel.permute(0, 2, 4, 1, 3).flatten(1, 2), self.bias)


class NarrowConvolution(nn.Conv2d):
    """A convolution of stride 1, trained in bf16: on narrow maps its weight gradient is one matrix product.

    The library's own goes through a map row by row, and rows of seven pixels fill a fifth of a matrix unit.
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__(
            plain.in_channels, plain.out_channels, plain.kernel_size, padding=plain.padding, bias=plain.bias is not None
        )
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, maps: Tensor) -> Tensor:
        if maps.is_cpu and maps.shape[-1] <= NARROW and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            bias = None if self.bias is None else self.bias.to(kind)
            return _Convolve.apply(maps.to(kind), self.weight.to(kind), bias, self.padding)
        return super().forward(maps)


class GroupedConvolution(nn.Conv2d):
    """A convolution a task, on channels that lie side by side.

    Where they are many, one after the other: the library's own grouped convolution takes up to 1.5 times as long there.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if self.in_channels < WIDE * self.groups:
            return super().forward(maps)
        form = (self.stride, self.padding, self.dilation)
        biases = [None] * self.groups if self.bias is None else self.bias.chunk(self.groups)
        of_task = zip(maps.chunk(self.groups, 1), self.weight.chunk(self.groups), biases, strict=True)
        return torch.cat([F.conv2d(own, weight, bias, *form) for own, weight, bias in of_task], 1)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        context: torch.autograd.function.FunctionCtx,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: tuple[int, int],
    ) -> Tensor:
        context.save_for_backward(maps, weight)
        context.padding = padding
        context.with_bias = bias is not None
        return F.conv2d(maps, weight, bias, padding=padding)

    @staticmethod
    def backward(
        context: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        maps, weight = context.saved_tensors
        of_maps = of_weight = of_bias = None
        if context.needs_input_grad[0]:
            of_maps = torch.nn.grad.conv2d_input(maps.shape, weight, gradient, padding=context.padding)
        flat = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])
        if context.needs_input_grad[1]:
            of_weight = _weight_gradient(maps, flat, weight.shape, context.padding)
        if context.with_bias and context.needs_input_grad[2]:
            of_bias = flat.sum(0, dtype=torch.float32).to(gradient.dtype)
        return of_maps, of_weight, of_bias, None


def _weight_gradient(maps: Tensor, flat: Tensor, shape: torch.Size, padding: tuple[int, int]) -> Tensor:
    """Every kernel-sized window of the maps as a row, times the gradient (places, out_channels) at its place."""
    high, wide = shape[2:]
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    images, rows, columns, channels = padded.shape
    step = padded.stride()
    windows = padded.as_strided(
        (images, rows - high + 1, columns - wide + 1, high, wide, channels), (*step[:3], *step[1:])
    )
    products = flat.T @ windows.reshape(len(flat), -1)
    return products.view(shape[0], high, wide, channels).permute(0, 3, 1, 2)


def quicken(network: nn.Module, size: int) -> nn.Module | None:
    """A network of the same function that reads grey, with the quicker forms in the place of its convolutions.

    None where it cannot read grey: where several convolutions read the image, or one normalizes its own weights.
    """
    quick = copy.deepcopy(network)
    plain = [(name, module) for name, module in quick.named_modules() if isinstance(module, nn.Conv2d)]
    for place, (name, module) in enumerate(plain):
        usual = type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        usual = usual and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        path, _, last = name.rpartition(".")
        if place == 0 and not usual:
            module.weight = nn.Parameter(module.weight.detach().sum(1, keepdim=True))
            module.in_channels = 1
        elif place == 0:
            setattr(quick.get_submodule(path), last, GreyStem(module))
        elif usual and module.stride == (1, 1):
            setattr(quick.get_submodule(path), last, NarrowConvolution(module))
    return quick if _alike(network, quick, size) else None


def plainly(network: nn.Module) -> None:
    """Put plain convolutions of the same function, sharing their weights, where the quicker forms are, in place.

    A graph of plain ones can be quantized; weights that it cuts in pieces as it runs cannot.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, GreyStem | NarrowConvolution | GroupedConvolution):
            form = (module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding)
            plain = nn.Conv2d(*form, module.dilation, module.groups, bias=module.bias is not None)
            plain.weight, plain.bias = module.weight, module.bias
            path, _, last = name.rpartition(".")
            setattr(network.get_submodule(path), last, plain)


@torch.no_grad()
def _alike(network: nn.Module, quick: nn.Module, size: int) -> bool:
    """Whether both say the same of a grey picture."""
    grey = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0)) - 0.5
    modes = network.training, quick.training
    try:
        wanted = network.eval()(grey.expand(-1, 3, -1, -1))
        found = quick.eval()(grey)
    except RuntimeError:
        return False
    finally:
        network.train(modes[0])
        quick.train(modes[1])
    return bool((found - wanted).norm() <= 1e-3 * wanted.norm())
