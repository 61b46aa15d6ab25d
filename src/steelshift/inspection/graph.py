"""An inspector as one ONNX graph: decoded pixels in, calibrated probabilities out.

The graph is traced from the code that runs in eager mode, `resample.py` included: sizes of images stay free in it, and
the weights of resizing are computed in it from positions alone. So whoever runs the file needs nothing but pixels, and
each value is the same sum of the same numbers in every runtime; `inspect` in OpenVINO alone does preprocessing by
`light.py` instead, for speed, which tests hold to the same values. Only two things are written otherwise: colour is
mixed by as many weights as there are channels, so that one graph takes grey and colour, and convolutions have the plain
form, for the other ones are forms for training.

Preprocessing and network are traced apart and joined at `prepared`, so that they can be told apart again: the former
needs fp32 wherever it runs.
"""

import copy
import warnings
from typing import Any

import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from steelshift.errors import RunFailed
from steelshift.inspection.inspector import Inspector
from steelshift.inspection.runtimes import FEATURES, HEAT, MAPS, PIXELS, PREPARED, PROBABILITIES
from steelshift.light import LUMINANCE
from steelshift.nn.convolution import plainly
from steelshift.resample import resample

PREPARING = "prepare/"
"""How the names of nodes of preprocessing begin."""
_LARGEST = {"batch": 1 << 16, "height": 1 << 16, "width": 1 << 16, "channels": 3}


class _Prepare(nn.Module):
    """uint8 (B, H, W, C) -> float32 (B, 1, S, S), evenly lit."""

    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.inspector = inspector
        self.register_buffer("mixes", torch.tensor((1.0, *LUMINANCE)))  # of one channel, of three

    def forward(self, pixels: Tensor) -> Tensor:
        _, height, width, channels = pixels.shape
        mix = self.mixes.narrow(0, (channels - 1) // 2, channels)
        grey = (pixels.float() * mix).sum(3)
        box = [torch.full((1,), side, dtype=torch.float32) for side in (0, 0, height, width)]  # one for all images
        return self.inspector.encoder.even(resample(grey, torch.stack(box, 1), self.inspector.specification.size))


class _Network(nn.Module):
    """float32 (B, 1, S, S), evenly lit -> probabilities (B, K), features (B, F) and, where known, last maps."""

    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.inspector = inspector

    def forward(self, prepared: Tensor) -> tuple[Tensor, ...]:
        features, maps = self.inspector.features_and_maps(prepared)
        probabilities = self.inspector.calibrated(self.inspector.classifier(features))
        return (probabilities, features) if maps is None else (probabilities, features, maps)


def to_onnx(inspector: Inspector) -> tuple[onnx.ModelProto, onnx.ModelProto | None]:
    """The graph of an inspector, free in number, size and channels of images, and that of its heat maps, if any.

    Raises RunFailed.
    """
    plain = copy.deepcopy(inspector).eval()
    plain.__dict__.pop("drawing", None)  # of the layers that are replaced now
    plainly(plain.encoder)
    size = inspector.specification.size
    free = [torch.export.Dim(name, min=1, max=most) for name, most in _LARGEST.items()]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, about itself
            pixels = torch.zeros(2, 20, 30, 3, dtype=torch.uint8)
            first = _traced(_Prepare(plain), pixels, dict(enumerate(free)), PIXELS, [PREPARED])
            prepared = torch.zeros(2, 1, size, size)
            maps = plain.features_and_maps(prepared)[1]
            gives = [PROBABILITIES, FEATURES] if maps is None else [PROBABILITIES, FEATURES, MAPS]
            second = _traced(_Network(plain), prepared, {0: free[0]}, "given", gives)
            heat = None if maps is None else _traced(plain.drawing[1], maps.clone(), {0: free[0]}, MAPS, [HEAT])
        first, second = (
            compose.add_prefix(graph, prefix, rename_inputs=False, rename_outputs=False)
            for graph, prefix in ((first, PREPARING), (second, "network/"))
        )
        model = compose.merge_models(first, second, io_map=[(PREPARED, "given")])
        onnx.checker.check_model(model)
    except Exception as error:  # a compiler of any network: whatever it raises, there is no graph
        why = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise RunFailed("no_graph", encoder=inspector.specification.encoder, why=why) from error
    return model, heat


def _traced(part: nn.Module, example: Tensor, free: dict[int, Any], given: str, gives: list[str]) -> onnx.ModelProto:
    program = torch.export.export(part.eval(), (example,), dynamic_shapes=(free,))
    names = {"input_names": [given], "output_names": gives}
    return torch.onnx.export(program, (), dynamo=True, verbose=False, **names).model_proto
