"""Exported graphs in ONNX Runtime and OpenVINO, on the processor. No torch here.

A graph takes `pixels`, uint8 (B, H, W, C), and gives `probabilities`, float32 (B, K), `features`, float32 (B, F), and,
where heat maps can be drawn, `maps`, float32 (B, C, h, w). On the way `prepared`, float32 (B, 1, S, S), is what the
network reads: grey, resized, evenly lit. A graph of its own turns `maps` into `heat`, float32 (B, h, w).
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from steelshift import light
from steelshift.errors import UsageError

PIXELS, PREPARED, PROBABILITIES = "pixels", "prepared", "probabilities"
FEATURES, MAPS, HEAT = "features", "maps", "heat"
RUNTIMES, PRECISIONS = ("onnx", "openvino"), ("fp32", "bf16", "int8")
"""Plainest first."""
PART = 8
"""Images that one request to OpenVINO takes; as many requests at once as it advises."""
Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


_threads: int | None = None


def set_threads(count: int) -> None:
    """How many threads each graph that is opened from now on computes with; before, as many as its runtime likes."""
    global _threads
    _threads = count


def need(*packages: str, extra: str = "export") -> None:
    """Raises UsageError where one of these packages, which `extra` installs, is not there."""
    for package in packages:
        if find_spec(package) is None:
            raise UsageError("package_missing", package=package, extra=extra)


def open_graph(
    runtime: str, precision: str, files: Sequence[Path], gives: Sequence[str] = (PROBABILITIES,), *, whole: bool = False
) -> Run:
    """A function from groups of pixels, uint8 (B, H, W, C) each, to what is asked for, float32 (sum of B, ...) each.

    whole: the files alone, as programs run them that have nothing of ours. That is slower in OpenVINO.

    Raises UsageError where the runtime is not installed, and whatever the runtime raises for a file that is no graph.
    """
    need("onnxruntime" if runtime == "onnx" else "openvino")
    contents = [path.read_bytes() for path in files]  # a graph given as bytes can name no other file to be read
    if runtime == "onnx":
        return _onnx(gives, *contents)
    return (_whole_openvino if whole else _openvino)(gives, precision, *contents)


def open_heat(runtime: str, file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from maps (B, C, h, w) to heat (B, h, w). Raises as `open_graph`."""
    content = file.read_bytes()
    if runtime == "onnx":
        session = _session(content)
        return lambda maps: session.run([HEAT], {MAPS: maps})[0]
    core = import_openvino().Core()
    graph = core.compile_model(core.read_model(content), "CPU", _options("f32"))
    return lambda maps: graph.create_infer_request().infer([maps])[0].copy()  # of its own: several threads ask


def _options(precision: str) -> dict[str, object]:
    """Of OpenVINO."""
    return {"INFERENCE_PRECISION_HINT": precision} | ({"INFERENCE_NUM_THREADS": _threads} if _threads else {})


def without_reports() -> None:
    """Switch off the usage reports of OpenVINO and NNCF, before either is imported.

    Importing OpenVINO already sends one, and so do its converter and NNCF. All go through the package
    `openvino_telemetry`; where that cannot be imported, both use stubs of their own. The switches that they offer are
    a file in the user's home, and a variable for NNCF alone.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def import_openvino() -> ModuleType:
    """The module, ready for threads.

    What its binding knows of NumPy's types is made at first need, under a lock that does not let go of Python's own:
    two threads whose first inference is at the same time can wait for each other for ever. So one array goes in and
    out here, before there are threads.
    """
    without_reports()
    import openvino

    _ = openvino.Tensor(np.zeros(1, np.uint8)).data
    return openvino


def computes_bf16() -> bool:
    """Whether this processor has bf16; on others OpenVINO runs in fp32 whatever is asked."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _session(content: bytes) -> Any:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it would keep what the largest image took, and is no faster
    options.intra_op_num_threads = _threads or 0  # 0: as many as it likes
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _onnx(gives: Sequence[str], content: bytes) -> Run:
    session = _session(content)

    def run(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
        parts = [session.run(list(gives), {PIXELS: images}) for images in groups]
        return [np.concatenate(found) for found in zip(*parts, strict=True)]

    return run


def _openvino(gives: Sequence[str], precision: str, described: bytes, weights: bytes) -> Run:
    """The network alone: what comes before it is done by `light.prepare`.

    As a part of the graph it takes as long as a network in int8, and a graph that is free in the size of images keeps
    what each size and the largest image took.
    """
    openvino = import_openvino()
    model = openvino.Core().read_model(described, weights)
    prepared = _named(model, PREPARED)
    begin = openvino.op.Parameter(openvino.Type.f32, prepared.get_partial_shape())
    for reader in prepared.get_target_inputs():
        reader.replace_source_output(begin.output(0))
    network = _compiled(openvino.Model([_named(model, name) for name in gives], [begin], "network"), precision)

    size = prepared.get_partial_shape()[3].get_length()
    own = threading.local()
    pool = ThreadPoolExecutor(network.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def part(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not hasattr(own, "network"):
            own.network = network.create_infer_request()
            own.prepared = np.empty((PART, 1, size, size), np.float32)  # new memory each time would cost a tenth
        done = 0
        for images in groups:
            light.prepare(images, own.prepared[done : done + len(images)])
            done += len(images)
        found = own.network.infer([own.prepared[:done]], share_inputs=True)
        return [found[place].copy() for place in range(len(gives))]

    def run(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.concatenate(found) for found in zip(*pool.map(part, _parts(groups)), strict=True)]

    return run


def _whole_openvino(gives: Sequence[str], precision: str, described: bytes, weights: bytes) -> Run:
    graph = _compiled(import_openvino().Core().read_model(described, weights), precision)

    def run(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
        request = graph.create_infer_request()
        parts = [[found[name].copy() for name in gives] for found in map(request.infer, ([group] for group in groups))]
        return [np.concatenate(found) for found in zip(*parts, strict=True)]

    return run


def _compiled(model: Any, precision: str) -> Any:
    """On processors with bf16 OpenVINO would use it by itself: the precision is therefore said."""
    options = _options("bf16" if precision == "bf16" else "f32") | {"PERFORMANCE_HINT": "THROUGHPUT"}
    return import_openvino().Core().compile_model(model, "CPU", options)


def _parts(groups: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Groups cut and put together into parts of PART images, the last one of fewer."""
    part: list[np.ndarray] = []
    missing = PART
    for images in groups:
        start = 0
        while start < len(images):
            part.append(images[start : start + missing])
            start, missing = start + len(part[-1]), missing - len(part[-1])
            if not missing:
                yield part
                part, missing = [], PART
    if part:
        yield part


def _named(model: Any, name: str) -> Any:
    for node in model.get_ordered_ops():
        for output in node.outputs():
            if name in output.get_names():
                return output
    raise ValueError(f"the graph has no {name}")
