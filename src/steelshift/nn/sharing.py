"""Several networks, one a task, that share channels: many near the image, fewer further on, none at the end.

Layer l of a network of c channels has s = round(rho c) shared channels and p = c - s private ones a task:

    h_shared = f(W_shared h_shared'),   h_t = f(W_t [h_shared'; h_t'])

so that shared channels read only shared inputs. All tasks run in one pass: one convolution reads the shared inputs for
everything that is computed from them, a grouped one the private inputs, and both are added.

rho = 1 everywhere is hard sharing, rho = 0 everywhere are separate networks, and those with a mixing matrix of the
tasks after every layer are cross-stitch networks (Misra et al., CVPR 2016).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG

from steelshift.errors import UsageError
from steelshift.nn.convolution import GroupedConvolution

Kind = Literal["progressive", "hard", "cross_stitch", "separate"]
SCHEDULE = (0.95, 0.95, 0.95, 0.65, 0.65, 0.65, 0.0)
"""Share of shared channels by depth; deeper layers take the last."""
OWN = 0.9
"""What a cross-stitched network keeps of its own maps at the beginning; the other tasks' make up the rest."""
FASTER = 10.0
"""In what unit the mixing matrix is kept: steps of Adam are ten times as long in it, those of SGD a hundred times, as
published. With the networks' own rate it would stay where it begins."""


class Width(NamedTuple):
    """Channels of a layer: shared ones, and private ones of each task."""

    shared: int
    private: int

    def times(self, factor: int) -> "Width":
        return Width(self.shared * factor, self.private * factor)


@dataclass(frozen=True)
class Sharing:
    """How the networks of some tasks share channels."""

    tasks: int
    ratios: tuple[float, ...] = SCHEDULE
    """Share of shared channels in layers 1, 2, ...; it never rises, for shared channels read only shared inputs."""
    stitched: bool = False

    def __post_init__(self) -> None:
        falling = all(later <= earlier for earlier, later in zip(self.ratios, self.ratios[1:], strict=False))
        if not self.ratios or not falling or not all(0 <= ratio <= 1 for ratio in self.ratios):
            raise UsageError("option_range", key="ratios", value=list(self.ratios), range="0 to 1, never rising")

    def width(self, channels: int, depth: int) -> Width:
        """Channels of a layer of that depth, counted from 0."""
        shared = round(self.ratios[min(depth, len(self.ratios) - 1)] * channels)
        return Width(shared, channels - shared)


def sharing_of(kind: Kind, ratios: tuple[float, ...], tasks: int) -> Sharing:
    """Progressive sharing by its ratios, or one of its rivals, which have their own."""
    if kind == "progressive":
        return Sharing(tasks, ratios)
    return Sharing(tasks, (1.0,) if kind == "hard" else (0.0,), stitched=kind == "cross_stitch")


class SharedLayer(nn.Module):
    """One convolution or linear layer of all tasks' networks.

    Channels lie side by side: the shared ones, then those of the first task, of the second, and so on.
    """

    def __init__(self, plain: nn.Conv2d | nn.Linear, before: Width, after: Width, tasks: int) -> None:
        """plain: the layer of one network, whose weights every task's network begins with."""
        super().__init__()
        self.before, self.after, self.tasks = before, after, tasks
        self.reads_shared = self.reads_private = None
        with torch.no_grad():
            weight, bias = plain.weight, plain.bias
            s0, s1 = before.shared, after.shared
            # What reads fewer inputs than the plain layer would give a weaker signal.
            shared = weight[:s1, :s0] * (sum(before) / s0) ** 0.5 if s1 else weight[:0, :s0]
            own = weight[s1:]
            own_bias = None if bias is None else bias[s1:].repeat(tasks)
            if s0:
                self.reads_shared = _like(plain, s0, s1 + tasks * after.private)
                self.reads_shared.weight.copy_(torch.cat([shared, *[own[:, :s0]] * tasks]))
                if bias is not None:
                    self.reads_shared.bias.copy_(torch.cat([bias[:s1], own_bias]))
            if before.private and after.private:
                self.reads_private = _like(plain, *(tasks * w.private for w in (before, after)), tasks, bias=not s0)
                parts = self.reads_private if isinstance(self.reads_private, GroupedLinear) else [self.reads_private]
                times = tasks // len(parts)
                for part in parts:
                    part.weight.copy_(own[:, s0:].repeat(times, *[1] * (weight.ndim - 1)))
                    if not s0 and bias is not None:
                        part.bias.copy_(bias[s1:].repeat(times))

    def forward(self, values: Tensor) -> Tensor:
        """(B, shared + tasks * private, ...) of the layer before -> the same of this layer."""
        shared = self.before.shared
        if self.reads_shared is None:
            return self.reads_private(values)
        found = self.reads_shared(values[:, :shared] if self.before.private else values)
        if self.reads_private is None:
            return found
        found[:, self.after.shared :] += self.reads_private(values[:, shared:])
        return found


class GroupedLinear(nn.ModuleList):
    """A linear layer a task, on features that lie side by side: (B, tasks * inputs) -> (B, tasks * outputs).

    One weight a task: slices of a common one would have their gradients copied together, and a batched product takes
    twice as long backwards.
    """

    def __init__(self, inputs: int, outputs: int, tasks: int, bias: bool) -> None:
        super().__init__(nn.utils.skip_init(nn.Linear, inputs, outputs, bias) for _ in range(tasks))

    def forward(self, features: Tensor) -> Tensor:
        of_task = zip(self, features.chunk(len(self), 1), strict=True)
        return torch.cat([linear(own) for linear, own in of_task], 1)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
        """Weights of inspectors that were made when all tasks had one tensor are the same, one below the other."""
        for name in ("weight", "bias"):
            for task, own in enumerate(state.pop(prefix + name).chunk(len(self)) if prefix + name in state else ()):
                state[f"{prefix}{task}.{name}"] = own
        super()._load_from_state_dict(state, prefix, *others)


class CrossStitch(nn.Module):
    """Mixes the maps of separate networks: x_a <- sum_b A_ab x_b."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        others = (1 - OWN) / max(1, tasks - 1)
        first = torch.full((tasks, tasks), others) + (OWN - others) * torch.eye(tasks)
        self.mixing = nn.Parameter(first / FASTER)

    def forward(self, values: Tensor) -> Tensor:
        """(B, tasks * channels, ...) -> the same."""
        tasks = len(self.mixing)
        mixing = (FASTER * self.mixing).to(values.dtype)
        mixed = torch.einsum("ab,nb...->na...", mixing, values.unflatten(1, (tasks, -1)))
        return mixed.flatten(1, 2)


class Resplit(nn.Module):
    """The identity between widths: channels that cease to be shared become the first private ones of every task."""

    def __init__(self, before: Width, after: Width, tasks: int) -> None:
        super().__init__()
        self.before, self.after, self.tasks = before, after, tasks

    def forward(self, values: Tensor) -> Tensor:
        if self.before == self.after:
            return values
        kept, freed = values[:, : self.after.shared], values[:, self.after.shared : self.before.shared]
        parts = [kept]
        for own in values[:, self.before.shared :].tensor_split(self.tasks, 1):
            parts += [freed, own]
        return torch.cat(parts, 1)


class SharedBlock(nn.Module):
    """A residual block: layers with their normalization, and the way around them."""

    def __init__(self, layers: list[tuple[nn.Module, nn.Module]], around: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(*pair) for pair in layers)
        self.around = around

    def forward(self, values: Tensor) -> Tensor:
        found = values
        for layer in self.layers[:-1]:
            found = layer(found).relu()
        return (self.layers[-1](found) + self.around(values)).relu()


class SharedTrunk(nn.Module):
    """The convolutions of all tasks' networks, made from those of one network: AlexNet, VGG or ResNet."""

    def __init__(self, plain: nn.Module, sharing: Sharing, channels: int = 3) -> None:
        """plain: the network of one task. channels: of its images. Raises UsageError for other networks."""
        super().__init__()
        self.sharing = sharing
        made = _Conversion(sharing, Width(channels, 0))
        made.add(plain)
        self.layers = nn.ModuleList(made.layers)
        self.ends = made.width
        """Of the features, which lie as the channels do."""
        self.last_shared = made.last_shared
        """Index of the last of `layers` after which channels are shared; -1 where none are."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, S, S) -> features (B, shared + tasks * private)."""
        return self.both(images)[0]

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and the last shared channels, averaged over the image: (B, shared)."""
        values, shared = images, images[:, :0].mean((2, 3))
        for index, layer in enumerate(self.layers):
            values = layer(values)
            if index == self.last_shared:
                shared = (
                    values[:, : self.shared_width].flatten(2).mean(2)
                    if values.ndim == 4
                    else (values[:, : self.shared_width])
                )
        return values, shared

    @property
    def shared_layers(self) -> list[SharedLayer]:
        """In the order of the way through them."""
        return [module for module in self.modules() if isinstance(module, SharedLayer)]

    @property
    def shared_parameters(self) -> list[tuple[nn.Parameter, int]]:
        """Parameters in which tasks meet, and how many of the first rows of each all tasks use."""
        found = []
        for module in self.modules():
            if isinstance(module, SharedLayer) and module.after.shared:
                found += [(value, module.after.shared) for value in module.reads_shared.parameters()]
            elif isinstance(module, _BatchNorm) and module.shared:
                found += [(value, module.shared) for value in module.parameters()]
            elif isinstance(module, CrossStitch):
                found.append((module.mixing, len(module.mixing)))
        return found

    @property
    def shared_width(self) -> int:
        """Of the last shared channels."""
        widths = [layer.after.shared for layer in self.shared_layers if layer.after.shared]
        return widths[-1] if widths else 0


def by_task(features: Tensor, ends: Width, tasks: int) -> Tensor:
    """Features (B, shared + tasks * private) -> (B, tasks, shared + private), the path of every task."""
    shared = features[:, None, : ends.shared].expand(-1, tasks, -1)
    return torch.cat([shared, features[:, ends.shared :].unflatten(1, (tasks, ends.private))], 2)


class _Conversion:
    """The layers of one network turned into those of many, in turn."""

    def __init__(self, sharing: Sharing, width: Width) -> None:
        self.sharing, self.width, self.depth = sharing, width, 0
        self.layers: list[nn.Module] = []
        self.last_shared = -1
        self.flat = False
        """Whether maps were flattened, and no layer has read them since: channels are not where widths say."""

    def add(self, module: nn.Module) -> None:
        if isinstance(module, nn.Sequential):
            for child in module:
                self.add(child)
        elif isinstance(module, ResNet):
            for child in (module.conv1, module.bn1, module.relu, module.maxpool):
                self.add(child)
            for stage in (module.layer1, module.layer2, module.layer3, module.layer4):
                self.add(stage)
            for child in (module.avgpool, nn.Flatten(), module.fc):
                self.add(child)
        elif isinstance(module, VGG):
            for child in (module.features, module.avgpool, nn.Flatten(), module.classifier):
                self.add(child)
        else:
            self._append(self._one(module))
            if self.sharing.stitched and isinstance(module, nn.ReLU | BasicBlock | Bottleneck):
                self._append(CrossStitch(self.sharing.tasks))

    def _append(self, layer: nn.Module) -> None:
        self.layers.append(layer)
        self.flat = isinstance(layer, nn.Flatten) or (self.flat and not isinstance(layer, SharedLayer))
        if self.width.shared and self.depth and not self.flat:
            self.last_shared = len(self.layers) - 1

    def _one(self, module: nn.Module) -> nn.Module:
        if isinstance(module, nn.Conv2d | nn.Linear):
            return self._layer(module)
        if isinstance(module, _BatchNorm):
            return self._normalization(module)
        if isinstance(module, BasicBlock | Bottleneck):
            return self._block(module)
        if any(True for _ in module.parameters()) or isinstance(module, nn.ModuleList | nn.ModuleDict):
            raise UsageError("encoder_cannot_share", layer=type(module).__name__)
        return copy.deepcopy(module)

    def _layer(self, plain: nn.Conv2d | nn.Linear) -> SharedLayer:
        if isinstance(plain, nn.Conv2d) and (plain.groups > 1 or plain.padding_mode != "zeros"):
            raise UsageError("encoder_cannot_share", layer=str(plain))
        inputs, outputs = plain.weight.shape[1], plain.weight.shape[0]
        before = self.width.times(inputs // sum(self.width))  # flattened maps have many features a channel
        after = self.sharing.width(outputs, self.depth) if before.shared else Width(0, outputs)
        self.depth += 1
        self.width = after
        return SharedLayer(plain, before, after, self.sharing.tasks)

    def _normalization(self, plain: _BatchNorm) -> _BatchNorm:
        found = type(plain)(
            self.width.shared + self.sharing.tasks * self.width.private, plain.eps, plain.momentum, plain.affine
        )
        shared = found.shared = self.width.shared  # for shared_parameters
        with torch.no_grad():
            for name, value in plain.state_dict().items():
                if value.ndim:
                    value = torch.cat([value[:shared], value[shared:].repeat(self.sharing.tasks)])
                found.state_dict()[name].copy_(value)
        return found

    def _block(self, block: BasicBlock | Bottleneck) -> SharedBlock:
        begins = self.width
        names = ("1", "2", "3") if isinstance(block, Bottleneck) else ("1", "2")
        layers = []
        for name in names:
            layer = self._layer(getattr(block, f"conv{name}"))
            layers.append((layer, self._normalization(getattr(block, f"bn{name}"))))
        if block.downsample is None:
            return SharedBlock(layers, Resplit(begins, self.width, self.sharing.tasks))
        around = SharedLayer(block.downsample[0], begins, self.width, self.sharing.tasks)
        return SharedBlock(layers, nn.Sequential(around, self._normalization(block.downsample[1])))


def _like(plain: nn.Conv2d | nn.Linear, inputs: int, outputs: int, groups: int = 1, *, bias: bool = True) -> Any:
    """A layer of the same form between other numbers of channels."""
    bias = bias and plain.bias is not None
    if isinstance(plain, nn.Linear):
        if groups == 1:
            return nn.Linear(inputs, outputs, bias)
        return GroupedLinear(inputs // groups, outputs // groups, groups, bias)
    form = (plain.kernel_size, plain.stride, plain.padding, plain.dilation)
    kind = nn.Conv2d if groups == 1 else GroupedConvolution
    return kind(inputs, outputs, *form, groups=groups, bias=bias)


@torch.no_grad()
def measure_sharing(trunk: SharedTrunk, images: Tensor) -> dict[str, float]:
    """How much is shared, in three currencies that differ: channels, parameters and multiplications.

    images: (1, channels, S, S). channels: mean over the layers of their shared part. parameters, flops: part of one
    task's path that is shared. flops_ratio: all tasks' pass against that of one plain network. Biases, normalization
    and heads do not count, nor does what computes the way around a residual block count as a layer of its own channels.
    """
    places: dict[nn.Module, int] = {}

    def seen(layer: nn.Module, _: Any, found: Tensor) -> None:
        places[layer] = found[0, 0].numel()

    hooks = [layer.register_forward_hook(seen) for layer in trunk.shared_layers]
    was = trunk.training
    try:
        trunk.eval()(images)
    finally:
        trunk.train(was)
        for hook in hooks:
            hook.remove()
    blocks = [module for module in trunk.modules() if isinstance(module, SharedBlock)]
    around = {module for block in blocks for module in block.around.modules()}
    own = [layer for layer in trunk.shared_layers if layer not in around]
    tasks = trunk.sharing.tasks

    def total(count: Callable[[SharedLayer], float]) -> float:
        return sum(count(layer) for layer in trunk.shared_layers)

    def inputs(layer: SharedLayer) -> int:
        """Shared ones; the first layer may read grey, where the plain one reads three channels."""
        return layer.reads_shared.weight.shape[1] if layer.reads_shared is not None else 0

    def shared(layer: SharedLayer) -> int:
        return inputs(layer) * layer.after.shared * _kernel(layer)

    def private(layer: SharedLayer) -> int:
        return (inputs(layer) + layer.before.private) * layer.after.private * _kernel(layer)

    def plain(layer: SharedLayer) -> int:
        return (inputs(layer) + layer.before.private) * sum(layer.after) * _kernel(layer)

    return {
        "channels": sum(layer.after.shared / sum(layer.after) for layer in own) / len(own),
        "parameters": total(shared) / total(lambda layer: shared(layer) + private(layer)),
        "flops": total(lambda layer: shared(layer) * places[layer])
        / total(lambda layer: (shared(layer) + private(layer)) * places[layer]),
        "flops_ratio": total(lambda layer: (shared(layer) + tasks * private(layer)) * places[layer])
        / total(lambda layer: plain(layer) * places[layer]),
    }


def _kernel(layer: SharedLayer) -> int:
    """Multiplications of a place for a pair of channels."""
    part = layer.reads_private if layer.reads_shared is None else layer.reads_shared
    return 1 if isinstance(part, GroupedLinear) else part.weight[0, 0].numel()
