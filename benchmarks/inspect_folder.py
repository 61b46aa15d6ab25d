"""How near inspecting a folder comes to the bare runtime: read, hash, decode, prepare, infer, compare, decide, write.

    .venv/bin/python benchmarks/inspect_folder.py --encoder resnet18 --precision int8 --images 10000 \
        --kind PNG --anomalib .venv-anomalib/bin/python

Writes drawn images of 200 x 200, exports an inspector with random weights (speed alone depends on nothing else), and
goes through all of it in one process, on as many cores as the machine gives, in rounds that take all contenders in
turn: `bare`, the network's graph alone in OpenVINO's throughput mode at batch 8, from prepared images in memory;
`pixels`, our own path from decoded pixels in memory; `inspect`, everything, from files to the table; `torch loop`, what
one would write by hand: each file opened, resized and put through the same encoder in fp32; `anomalib`, where its
environment is named (anomalib_folder.py says how to make one). Prints medians in images a second and ratios within a
run, and where the time of `inspect` goes if it ran on one thread.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from steelshift.data.synthetic import CLASSES, draw
from steelshift.exporting import export
from steelshift.inspection import exported, inspector, reference, runtimes
from steelshift.inspection.inspecting import Wishes, inspect_into
from steelshift.inspection.specification import Specification, answer_each

DRAWN = 200
"""Pictures that are drawn; others are those, moved and a little brighter or darker."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--precision", default="int8", choices=runtimes.PRECISIONS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", default="PNG", choices=["PNG", "JPEG", "BMP"], help="of the files")
    parser.add_argument("--anomalib", type=Path, default=None, help="Python of an environment that has it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pixels = write_images(work / "images", options.images, options.kind)
        made = write_inspector(work / "inspector", options.encoder, options.size, pixels)
        export(work / "inspector", work / "exported", ["openvino"], [options.precision], None, work / "images")
        judge = exported.load(work / "exported", "openvino", options.precision)
        contenders = {
            "bare": lambda: bare(work / "exported", options.precision, options.size, min(options.images, 2000)),
            "pixels": lambda: from_pixels(judge, pixels, min(options.images, 2000)),
            "inspect": lambda: whole(judge, work / "images", work / "rows.csv", options.images),
            "torch loop": lambda: by_hand(made, work / "images", min(options.images, 500)),
        }
        if options.anomalib:
            contenders["anomalib"] = lambda: anomalib(options.anomalib, work / "images", min(options.images, 200))
        found = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, measure in contenders.items():
                found[name].append(measure())
        speeds = {name: statistics.median(values) for name, values in found.items()}
        print(json.dumps({
            "encoder": options.encoder, "precision": options.precision, "images": options.images, "kind": options.kind,
            "images_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
            "pixels / bare": round(speeds["pixels"] / speeds["bare"], 3),
            "inspect / bare": round(speeds["inspect"] / speeds["bare"], 3),
            **{f"inspect / {name}": round(speeds["inspect"] / speeds[name], 1)
               for name in ("torch loop", "anomalib") if name in speeds},
            "microseconds_an_image": {name: round(value, 1) for name, value in parts(judge, work / "images").items()},
        }, indent=1))  # fmt: skip
    return 0


def write_images(folder: Path, count: int, kind: str) -> list[np.ndarray]:
    """Returns the first pictures."""
    from PIL import Image

    rng = np.random.default_rng(0)
    drawn = [draw(CLASSES[number % len(CLASSES)], rng)[0] for number in range(min(DRAWN, count))]
    folder.mkdir(parents=True)
    for number in range(count):
        picture = np.roll(drawn[number % len(drawn)], number // len(drawn), axis=0)
        picture = np.clip(picture.astype(np.int16) + number % 7, 0, 255).astype(np.uint8)
        how = {"PNG": {"compress_level": 1}, "JPEG": {"quality": 90}, "BMP": {}}[kind]
        Image.fromarray(picture).save(folder / f"{number:06d}.{kind.lower()}", kind, **how)
    return [picture[..., None] for picture in drawn]


def write_inspector(folder: Path, encoder: str, size: int, pixels: list[np.ndarray]) -> inspector.Inspector:
    torch.manual_seed(0)
    made = inspector.Inspector(Specification(encoder, "conv_bottleneck", size, tuple(CLASSES)))
    batch = np.stack(pixels[:64])
    with torch.no_grad():
        features = made.answer([batch]).features
        made.classifier.weight.mul_(4 / max(features.std(), 1e-3))
    answer = made.answer([batch])
    labels = np.arange(1000) % len(CLASSES)
    made.reference = reference.build(
        np.abs(np.random.default_rng(0).normal(size=(1000, features.shape[1]))), labels,
        [f"{number}.png" for number in range(1000)], answer.features, answer.probabilities,
    )  # fmt: skip
    inspector.save(made, folder, "random weights", pixels[:8])
    return made


def bare(folder: Path, precision: str, size: int, count: int) -> float:
    """Images a second of the network alone."""
    openvino = runtimes.import_openvino()
    core = openvino.Core()
    files = exported.files_of("openvino", precision)
    model = core.read_model(*(folder / name for name in files))
    prepared, answer = (runtimes._named(model, name) for name in (runtimes.PREPARED, runtimes.PROBABILITIES))
    begin = openvino.op.Parameter(openvino.Type.f32, openvino.PartialShape([8, 1, size, size]))
    for reader in prepared.get_target_inputs():
        reader.replace_source_output(begin.output(0))
    hint = "bf16" if precision == "bf16" else "f32"
    graph = core.compile_model(
        openvino.Model([answer], [begin], "network"), "CPU",
        {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": hint},
    )  # fmt: skip
    queue = openvino.AsyncInferQueue(graph)
    batch = np.random.default_rng(0).normal(size=(8, 1, size, size)).astype(np.float32)
    for _ in range(8):
        queue.start_async({0: batch})
    queue.wait_all()
    began = time.perf_counter()
    for _ in range(count // 8):
        queue.start_async({0: batch})
    queue.wait_all()
    return count // 8 * 8 / (time.perf_counter() - began)


def from_pixels(judge: exported.Exported, pixels: list[np.ndarray], count: int) -> float:
    answer_each(judge, pixels[:32])
    began = time.perf_counter()
    done = 0
    while done < count:
        done += len(answer_each(judge, [pixels[(done + place) % len(pixels)] for place in range(32)]).features)
    return done / (time.perf_counter() - began)


def whole(judge: exported.Exported, folder: Path, out: Path, count: int) -> float:
    began = time.perf_counter()
    assert inspect_into(judge, [folder], out, Wishes()).rows == count
    return count / (time.perf_counter() - began)


def by_hand(made: inspector.Inspector, folder: Path, count: int) -> float:
    """Files one after the other through the encoder in fp32, as a short program would do it."""
    from PIL import Image

    files = sorted(folder.iterdir())[:count]
    size = made.specification.size
    began = time.perf_counter()
    with torch.inference_mode():
        for file in files:
            image = torch.from_numpy(np.array(Image.open(file).convert("L").resize((size, size)))).float()
            made.classifier(made.encoder(image[None, None])).softmax(1).max(1)
    return count / (time.perf_counter() - began)


def anomalib(python: Path, folder: Path, count: int) -> float:
    script = Path(__file__).with_name("anomalib_folder.py")
    command = [python, script, folder, str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parts(judge: exported.Exported, folder: Path, count: int = 320) -> dict[str, float]:
    """Microseconds an image of each part, one after the other on one thread."""
    from steelshift.data.decode import decode, read_bytes
    from steelshift.inspection.rows import _answers, limits_of

    files = sorted(folder.iterdir())[:count]
    clock = time.perf_counter
    times = [clock()]
    contents = [read_bytes(path)[1] for path in files]
    times.append(clock())
    pixels = [decode(content).pixels for content in contents]
    times.append(clock())
    answers = [answer_each(judge, pixels[start : start + 32]) for start in range(0, len(pixels), 32)]
    times.append(clock())
    for answer in answers:
        list(_answers(judge, answer.probabilities, answer.features, limits_of(judge)))
    times.append(clock())
    names = ("read and hash", "decode", "prepare and infer", "compare and decide")
    return {name: 1e6 * (end - start) / len(files) for name, start, end in zip(names, times, times[1:], strict=False)}


if __name__ == "__main__":
    sys.exit(main())
