"""An inspector as one ONNX graph: decoded pixels in, calibrated probabilities out.

The graph is traced from the code that runs in eager mode, `resample.py` included: sizes of images stay free in it, and
the weights of resizing are computed in it from positions alone. So there is no second description of preprocessing that
could differ, whoever runs the file needs nothing but pixels, and each value is the same sum of the same numbers in
every runtime. Only two things are written otherwise: colour is mixed by as many weights as there are channels, so that
one graph takes grey and colour, and convolutions have the plain form, for the other ones are forms for training.
"""

import copy
import warnings

import onnx
import torch
from torch import Tensor, nn

from steelshift.errors import RunFailed
from steelshift.inspection.inspector import Inspector
from steelshift.inspection.runtimes import PIXELS, PREPARED, PROBABILITIES
from steelshift.nn.convolution import plainly
from steelshift.resample import LUMINANCE, resample


class _FromPixels(nn.Module):
    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.inspector = copy.deepcopy(inspector)
        plainly(self.inspector.encoder)
        self.register_buffer("mixes", torch.tensor((1.0, *LUMINANCE)))  # of one channel, of three

    def forward(self, pixels: Tensor) -> Tensor:
        _, height, width, channels = pixels.shape
        mix = self.mixes.narrow(0, (channels - 1) // 2, channels)
        grey = (pixels.float() * mix).sum(3)
        box = [torch.full((1,), side, dtype=torch.float32) for side in (0, 0, height, width)]  # one for all images
        prepared = resample(grey, torch.stack(box, 1), self.inspector.specification.size)
        return self.inspector.probabilities(prepared)


def to_onnx(inspector: Inspector) -> onnx.ModelProto:
    """The graph of an inspector, free in number, size and channels of images. Raises RunFailed."""
    example = torch.zeros(2, 20, 30, 3, dtype=torch.uint8)
    largest = {"batch": 1 << 16, "height": 1 << 16, "width": 1 << 16, "channels": 3}
    free = {at: torch.export.Dim(name, min=1, max=most) for at, (name, most) in enumerate(largest.items())}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, about itself
            traced = torch.export.export(_FromPixels(inspector).eval(), (example,), dynamic_shapes=(free,))
            program = torch.onnx.export(
                traced, (), dynamo=True, verbose=False, input_names=[PIXELS], output_names=[PROBABILITIES]
            )
        model = program.model_proto
        onnx.checker.check_model(model)
    except Exception as error:  # a compiler of any network: whatever it raises, there is no graph
        raise RunFailed("no_graph", encoder=inspector.specification.encoder, why=_first_line(error)) from error
    _name_prepared(model)
    return model


def nodes_of_preparing(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that turn pixels into what the network reads."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found, waiting = set(), [PREPARED]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return sorted(found)


def _name_prepared(model: onnx.ModelProto) -> None:
    """Give what the first convolution reads its name."""
    first = next((node for node in model.graph.node if node.op_type == "Conv"), None)
    if first is None:
        raise RunFailed("no_graph", encoder=model.graph.name, why="there is no convolution")
    before = first.input[0]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == before:
                    names[at] = PREPARED
    for value in model.graph.value_info:
        if value.name == before:
            value.name = PREPARED


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
