"""Where the evidence for an answer lies, from the last maps of the network: no second pass, no gradient at run time.

Maps weighted by their mean gradient (Grad-CAM, Selvaraju et al. 2017), summed over channels, the positive part scaled
to its maximum; `sharpen` draws it. What follows the last maps is short enough to be differentiated by hand: a mean over
positions (then it is CAM, Zhou et al. 2016), or AlexNet's largest of 3 x 3 and fully connected layers. So it is a graph
like any other, and every runtime draws the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.nn.encoders import Encoder

_KERNEL, _STRIDE = 3, 2


class Heat(nn.Module):
    """Last maps (B, C, h, w) -> heat of the best class (B, h, w), 0 to 1."""

    def forward(self, maps: Tensor) -> Tensor:
        heat = self.evidence(maps).clamp(min=0)
        return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)

    def evidence(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> what each position adds to the logit of the best class (B, h, w)."""
        raise NotImplementedError


class HeatOfMean(Heat):
    """For networks whose feature is the mean over positions."""

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        self.classifier = classifier

    def evidence(self, maps: Tensor) -> Tensor:
        best = self.classifier(maps.mean((2, 3))).argmax(1)
        return (maps * self.classifier.weight[best][:, :, None, None]).sum(1)


class HeatOfAlexNet(Heat):
    """For AlexNet: the largest of 3 x 3 positions each second one, then a mean over windows, then full connections."""

    def __init__(self, layers: list[nn.Linear], rectified: list[bool], mean: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        # Copies: of a matrix that is multiplied from both sides OpenVINO 2026.4 once takes the wrong one.
        self.backwards = nn.ParameterList(layer.weight.detach().T.contiguous() for layer in layers[:-1])
        self.rectified = rectified
        self.mean = mean or nn.Identity()

    def evidence(self, maps: Tensor) -> Tensor:
        pooled = F.max_pool2d(maps, _KERNEL, _STRIDE)
        channels, height, width = pooled.shape[1:]
        flat = self.mean(pooled).flatten(1)
        kept = []
        for layer, rectified in zip(self.layers, self.rectified, strict=True):
            flat = layer(flat)
            kept.append(flat)
            flat = flat.relu() if rectified else flat
        gradient = self.layers[-1].weight[flat.argmax(1)]
        for weight, before in zip(reversed(self.backwards), reversed(kept[:-1]), strict=True):
            gradient = F.linear(gradient * (before > 0), weight)
        gradient = self._before_mean(gradient.unflatten(1, (channels, -1)), height, width)
        return (maps * gradient.sum((2, 3))[:, :, None, None]).sum(1)

    def _before_mean(self, gradient: Tensor, height: int, width: int) -> Tensor:
        """(B, C, positions of the mean) -> (B, C, height, width): backwards through a mean over windows."""
        if isinstance(self.mean, nn.Identity):
            return gradient.unflatten(2, (height, width))
        rows, columns = (F.adaptive_avg_pool1d(torch.eye(side), 6) for side in (height, width))
        return rows @ gradient.unflatten(2, (6, 6)) @ columns.T


def heat_of(encoder: Encoder, classifier: nn.Linear) -> tuple[nn.Module, Heat] | None:
    """The layer that reads the last maps, and heat from those; None for networks of another form."""
    found = _alexnet(encoder, classifier) or _mean(encoder, classifier)
    return found if found and _agrees(encoder, *found) else None


def _alexnet(encoder: Encoder, classifier: nn.Linear) -> tuple[nn.Module, Heat] | None:
    modules = [module for module in encoder.trunk.modules() if not list(module.children())]
    pools = [place for place, module in enumerate(modules) if isinstance(module, nn.MaxPool2d)]
    if not pools or not isinstance(encoder.trunk, nn.Sequential):
        return None
    pool, rest = modules[pools[-1]], [m for m in modules[pools[-1] + 1 :] if not isinstance(m, nn.Dropout | nn.Flatten)]
    if (pool.kernel_size, pool.stride, pool.padding) != (_KERNEL, _STRIDE, 0):
        return None
    mean = rest.pop(0) if rest and isinstance(rest[0], nn.AdaptiveAvgPool2d) else None
    layers = [module for module in rest if isinstance(module, nn.Linear)]
    if len(rest) != 2 * len(layers) or not all(isinstance(module, nn.ReLU) for module in rest[1::2]):
        return None
    return pool, HeatOfAlexNet([*layers, classifier], [True] * len(layers) + [False], mean)


def _mean(encoder: Encoder, classifier: nn.Linear) -> tuple[nn.Module, Heat] | None:
    pools = [module for module in encoder.trunk.modules() if "AdaptiveAvgPool" in type(module).__name__]
    return (pools[-1], HeatOfMean(classifier)) if pools else None


@torch.no_grad()
def _agrees(encoder: Encoder, reads: nn.Module, heat: Heat) -> bool:
    """Whether the maps have the form that the heat expects: its positions must add up to the feature's mean."""
    even = torch.linspace(-1, 1, encoder.size**2).reshape(1, 1, encoder.size, encoder.size)
    features, found = features_with_maps(encoder, reads, even)
    if found is None or found.ndim != 4:
        return False
    if isinstance(heat, HeatOfMean):
        return found.shape[1] == features.shape[1] and torch.allclose(found.mean((2, 3)), features, atol=1e-4)
    return True


def features_with_maps(encoder: Encoder, reads: nn.Module, even: Tensor) -> tuple[Tensor, Tensor | None]:
    """float (B, 1, S, S), evenly lit -> (B, F), and what the layer `reads` is given on the way, (B, C, h, w)."""
    taken: list[Tensor] = []
    hook = reads.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    try:
        found = encoder.features(even)
    finally:
        hook.remove()
    return found, taken[-1] if taken else None
