"""Encoders by name: grey pixels in, features out.

An encoder is a trunk of torchvision or timm, cut before its last classifying layer, and for the patent's AlexNet one
of four readings of where "the feature" is taken.
"""

from pathlib import Path
from typing import Literal

import timm
import torch
import torchvision
from torch import Tensor, nn

from steelshift.errors import UsageError

Feature = Literal["conv_bottleneck", "conv_flat", "fc7", "fc7_bottleneck"]
BOTTLENECK = 256


class Encoder(nn.Module):
    """Features of grey images.

    trunk: takes (B, 3, S, S), gives (B, ...) that is flattened to `width`.
    """

    def __init__(self, trunk: nn.Module, size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.size = size
        with torch.no_grad():
            trunk.eval()
            self.width = self(torch.zeros(1, 1, size, size)).shape[1]
            trunk.train()

    def forward(self, images: Tensor) -> Tensor:
        """float (B, 1, S, S) in [0, 255] -> (B, width)."""
        scaled = (images - 127.5) / 64.0  # grey values of steel have a spread of a quarter to a half of the range
        return self.trunk(scaled.expand(-1, 3, -1, -1)).flatten(1)


def build_encoder(
    name: str, size: int, *, feature: Feature = "conv_bottleneck", weights: str | Path | None = None
) -> Encoder:
    """A new encoder with random weights, or with those of a file.

    name: `alexnet`, or any model of torchvision or timm. size: side of its square input in pixels.
    feature: for AlexNet, what the feature is: `conv_bottleneck` (convolutions, then 256), `conv_flat` (convolutions
        at 6 x 6, 9216), `fc7` (4096), `fc7_bottleneck` (fc7, then 256).
    weights: a file of safetensors, or a state dict that `torch.load(weights_only=True)` reads, whose names match;
        `torchvision` downloads theirs, and nothing else ever does.

    Raises UsageError for an unknown name, a size too small, or a file that does not fit.
    """
    try:
        trunk = _alexnet(size, feature, weights) if name == "alexnet" else _other(name, weights)
        return Encoder(trunk, size)
    except (RuntimeError, ValueError, OSError, KeyError, AssertionError) as error:
        raise UsageError("encoder_does_not_fit", name=name, size=size, why=_first_line(error)) from error


def last_convolution(encoder: nn.Module) -> nn.Module:
    """The layer whose maps heat maps are drawn from."""
    return [module for module in encoder.modules() if isinstance(module, nn.Conv2d)][-1]


def _alexnet(size: int, feature: Feature, weights: str | Path | None) -> nn.Module:
    whole = torchvision.models.alexnet(weights=_downloadable("alexnet", weights))
    _load(whole, weights)
    layers: list[nn.Module] = [whole.features]
    with torch.no_grad():
        width = whole.features(torch.zeros(1, 3, size, size)).flatten(1).shape[1]
    if feature != "conv_bottleneck":
        layers.append(whole.avgpool)  # the fully connected layers expect 6 x 6
        width = 256 * 6 * 6
    layers.append(nn.Flatten())
    if feature in ("fc7", "fc7_bottleneck"):
        layers.append(whole.classifier[:-1])
        width = 4096
    if feature in ("conv_bottleneck", "fc7_bottleneck"):
        layers += [nn.Linear(width, BOTTLENECK), nn.ReLU()]
    if weights is None:
        for layer in layers:
            layer.apply(_initialize)
    return nn.Sequential(*layers)


def _initialize(module: nn.Module) -> None:
    """He initialization: without normalization layers, AlexNet's default one lets the signal fade to nothing."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


def _other(name: str, weights: str | Path | None) -> nn.Module:
    if name in torchvision.models.list_models(module=torchvision.models):
        trunk = torchvision.models.get_model(name, weights=_downloadable(name, weights))
        _load(trunk, weights)
        *path, last = [key for key, module in trunk.named_modules() if isinstance(module, nn.Linear)][-1].split(".")
        setattr(trunk.get_submodule(".".join(path)), last, nn.Identity())
        return trunk
    if not timm.is_model(name):
        raise UsageError("encoder_unknown", name=name)
    trunk = timm.create_model(name, pretrained=False, num_classes=0)
    _load(trunk, weights)
    return trunk


def _downloadable(name: str, weights: str | Path | None) -> torchvision.models.WeightsEnum | None:
    return torchvision.models.get_model_weights(name).DEFAULT if weights == "torchvision" else None


def _load(model: nn.Module, weights: str | Path | None) -> None:
    if weights is None or weights == "torchvision":
        return
    if str(weights).endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(weights)
    else:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    known = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in known and value.shape == known[key].shape}
    missing = known.keys() - fitting.keys()
    # A file may lack the classifying layer, which is cut off anyway, and nothing else.
    if any(not key.startswith(("classifier.", "fc.", "head", "heads.")) for key in missing):
        raise ValueError(f"{weights} has no fitting {sorted(missing)[0]}")
    model.load_state_dict(fitting, strict=False)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
