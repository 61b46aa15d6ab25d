"""Megapixels a second of whole strips, on the cores that the process may use.

    taskset -c 0,1 python benchmarks/strip.py [--work FOLDER]

An AlexNet of 256 px, its classifier fitted on random features, exported in int8 for OpenVINO; strips of synthetic steel
with 2 % of the tiles defective. In one run, in turn, medians: the network alone on tiles that are ready; its
convolutions on tiles and in one pass over the whole strip; `inspect --strip` from decoded pixels in one stage and with
a first stage; and both with decoding. Besides wall time the time that the processor spent is told, as pixels a second
of so many cores: on a machine that others use too, that is nearer to an idle one. Then how far one pass over the strip
is from tiles, and the peak memory of a strip and of one ten times as long.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from textwrap import dedent
from typing import Any

import numpy as np
from PIL import Image

SIZE = 256
HIGH, WIDE = 1000, 2048
"""Of the smaller strips, eight of which are cut out of the one of 16384 x 1024."""
ROUNDS = 5
DEFECTIVE = 0.02
TILES = 2400
RUNTIME = ("openvino", "int8")
CORES = len(os.sched_getaffinity(0))


def draw_tiles(folder: Path) -> Path:
    """Tiles in class folders, half of them qualified."""
    from steelshift.data.synthetic import CLASSES, draw

    out = folder / "tiles"
    rng = np.random.default_rng(0)
    for turn in range(0 if out.exists() else TILES):
        name = CLASSES[0] if turn % 2 else CLASSES[1 + turn // 2 % 6]
        path = out / name / f"{turn:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(name, rng, size=SIZE)[0]).save(path, compress_level=1)
    return out


def build(folder: Path) -> Path:
    """An exported inspector; random features, and a classifier fitted on them."""
    import torch

    from steelshift.data.synthetic import CLASSES
    from steelshift.exporting import export
    from steelshift.inspection import inspector
    from steelshift.inspection.specification import Specification

    out = folder / "exported"
    if out.exists():
        return out
    tiles = draw_tiles(folder)
    torch.manual_seed(0)
    made = inspector.Inspector(Specification("alexnet", "conv_bottleneck", SIZE, CLASSES))
    paths = sorted(tiles.rglob("*.png"))[::4]
    images = torch.from_numpy(np.stack([np.asarray(Image.open(path))[..., None] for path in paths]))
    wanted = torch.eye(len(CLASSES))[[CLASSES.index(path.parent.name) for path in paths]] * 12
    with torch.no_grad():
        features = torch.cat([made.encoder(made.prepare(part)) for part in images.split(32)])
        given = torch.cat([features, torch.ones(len(features), 1)], 1)
        found = torch.linalg.lstsq(given.T @ given + 0.05 * torch.eye(given.shape[1]), given.T @ wanted).solution
        made.classifier.weight.copy_(found[:-1].T)
        made.classifier.bias.copy_(found[-1])
    inspector.save(made, folder / "inspector", "of a benchmark", [image.numpy() for image in images[::40]])
    export(folder / "inspector", out, ["openvino"], ["fp32", "int8"], calibrate=tiles)
    return out


def long_strip() -> np.ndarray:
    """uint8 (1024, 16384): eight surfaces, each mirrored without a seam, and a defective tile of fifty."""
    from steelshift.data.synthetic import CLASSES, draw

    rng = np.random.default_rng(1)
    down, across = 4, 64
    wrong = rng.permutation(down * across).reshape(down, across) < round(DEFECTIVE * down * across)
    strip = np.empty((down * SIZE, across * SIZE), np.uint8)
    for line, column in np.ndindex(down, across):
        name = CLASSES[1 + rng.integers(6)] if wrong[line, column] else CLASSES[0]
        tile, _ = draw(name, np.random.default_rng(1000 + column // 8), size=SIZE)  # a twin: the surface is the same
        tile = tile[:: -1 if line % 2 else 1, :: -1 if column % 2 else 1]
        strip[line * SIZE : (line + 1) * SIZE, column * SIZE : (column + 1) * SIZE] = tile
    return strip


def network_of(exported: Path, *, convolutions: bool = False, shape: tuple[int, ...]) -> Callable[[np.ndarray], None]:
    """What the exported network does to float32 `shape` as fast as it can: a function of many such batches."""
    from steelshift.inspection import runtimes

    openvino = runtimes.import_openvino()
    core = openvino.Core()
    model = core.read_model(exported / "openvino-int8.xml")
    prepared = runtimes._named(model, runtimes.PREPARED)
    begin = openvino.op.Parameter(openvino.Type.f32, prepared.get_partial_shape())
    for reader in prepared.get_target_inputs():
        if reader.get_node().get_type_name() != "Result":
            reader.replace_source_output(begin.output(0))
    end = runtimes._named(model, runtimes.PROBABILITIES)
    if convolutions:
        end = [node for node in model.get_ordered_ops() if node.get_type_name() == "MaxPool"][-1].output(0)
    graph = openvino.Model([end], [begin], "bare")
    graph.reshape(list(shape))
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT" if shape[0] > 1 else "LATENCY"}
    compiled = core.compile_model(graph, "CPU", hints)
    queue = openvino.AsyncInferQueue(compiled, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def run(batches: np.ndarray) -> None:
        for batch in batches:
            queue.start_async([batch], share_inputs=True)
        queue.wait_all()

    return run


def throughput(folder: Path) -> None:
    from steelshift.inspection import exported, first_stage

    graph = build(folder)
    judge = exported.load(graph, *RUNTIME)
    stage = first_stage.fit([draw_tiles(folder)], folder / "first-stage.json")
    print("first stage on tiles of its lines that it never saw:", stage.measured, flush=True)
    strip = long_strip()
    measure(folder, judge, stage, [strip[:HIGH, x : x + WIDE].copy() for x in range(0, strip.shape[1], WIDE)])
    measure(folder, judge, stage, [strip])


def measure(folder: Path, judge: Any, stage: Any, strips: list[np.ndarray]) -> None:
    """Print the rates of strips of one size, uint8 (height, width)."""
    from steelshift.data.strips import Strip
    from steelshift.data.table import Place
    from steelshift.inspection.rows import ImageRow
    from steelshift.inspection.strip import Findings, Layout, inspect_strip, inspect_strips
    from steelshift.light import prepare

    graph, layout = folder / "exported", Layout(SIZE)
    height, width = strips[0].shape
    places: dict[str, list[Place]] = {"PNG": [], "BMP": []}
    for kind, listed in places.items():
        for number, pixels in enumerate(strips):
            listed.append(Place(folder / f"{width}-{number}.{kind.lower()}", None))
            Image.fromarray(pixels).save(listed[-1].path, kind)
    open_ = [
        Strip("", width, height, 8, True, lambda top, bottom, pixels=pixels: pixels[top:bottom, :, None])
        for pixels in strips
    ]
    grid = [pixels[y : y + SIZE, x : x + SIZE] for pixels in strips
            for y in range(0, height - SIZE + 1, SIZE) for x in range(0, width, SIZE)]  # fmt: skip
    ready = np.empty((len(grid), 1, SIZE, SIZE), np.float32)
    prepare(np.stack(grid)[..., None], ready)
    ready = ready[: len(ready) // 8 * 8].reshape(-1, 8, 1, SIZE, SIZE)
    side = height // 32 * 32
    whole = np.resize(ready, (len(strips), 1, 1, side, width))
    bare = network_of(graph, shape=ready[0].shape)
    tiled = network_of(graph, convolutions=True, shape=ready[0].shape)
    once = network_of(graph, convolutions=True, shape=whole[0].shape)
    findings = {False: Findings(), True: Findings()}

    def decoded(staged: bool) -> None:
        with ThreadPoolExecutor(CORES) as pool:
            for strip in open_:
                given = (judge, strip, ImageRow(None, ""), layout, findings[staged], pool, None)
                for _ in inspect_strip(*given, stage if staged else None):
                    pass

    def read(kind: str, staged: bool) -> None:
        for _ in inspect_strips(judge, places[kind], layout, Findings(), None, stage if staged else None):
            pass

    count = width * height * len(strips)
    jobs = {
        "network alone, tiles ready": (ready.size, lambda: bare(ready)),
        "its convolutions, tiles": (ready.size, lambda: tiled(ready)),
        "its convolutions, one pass": (whole.size, lambda: once(whole)),
        "from decoded pixels, one stage": (count, lambda: decoded(False)),
        "from decoded pixels, two stages": (count, lambda: decoded(True)),
        "with decoding of PNG, one stage": (count, lambda: read("PNG", False)),
        "with decoding of PNG, two stages": (count, lambda: read("PNG", True)),
        "with decoding of BMP, one stage": (count, lambda: read("BMP", False)),
        "with decoding of BMP, two stages": (count, lambda: read("BMP", True)),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _ in range(ROUNDS + 1):
        for name, (_, job) in jobs.items():
            began, used = time.perf_counter(), time.process_time()
            job()
            spent[name].append((time.perf_counter() - began, time.process_time() - used))
    print(f"\n| {width} x {height} | Mpx/s | by processor time | of the network alone |\n|---|---|---|---|")
    alone = 0.0
    for name, (count, _) in jobs.items():
        wall, used = (median(times) for times in zip(*spent[name][1:], strict=True))
        alone = alone or count / used
        rates = f"{count / wall / 1e6:.1f} | {CORES * count / used / 1e6:.1f} | {count / used / alone:.0%}"
        print(f"| {name} | {rates} |")
    forwarded = findings[True]
    print(f"\nforwarded {forwarded.forwarded / forwarded.tiles:.1%} of {forwarded.tiles} tiles", flush=True)


def one_pass(folder: Path, run: Path | None = None) -> None:
    """How far the answers of one pass over a strip are from those of tiles, lit alike: what padding does.

    run: of a trained AlexNet whose side is a multiple of 32; by default the one of this benchmark.
    """
    import torch

    from steelshift.inspection import inspector
    from steelshift.nn.convolution import plainly

    made = inspector.load(run or folder / "inspector")
    size = made.specification.size
    plainly(made.encoder)
    pixels = long_strip()[:, : 8 * SIZE]
    tiles = torch.from_numpy(np.stack(
        [pixels[y : y + SIZE, x : x + SIZE, None] for y in range(0, 4 * SIZE, SIZE) for x in range(0, 8 * SIZE, SIZE)]
    ))  # fmt: skip
    with torch.inference_mode():
        even = made.encoder.even(made.prepare(tiles))
        layers = list(made.encoder.trunk.children())
        convolutions, rest = layers[0], torch.nn.Sequential(*layers[1:])
        expected = made.classifier(rest(convolutions(even))).softmax(1)
        mosaic = even.view(4, 8, size, size).permute(0, 2, 1, 3).reshape(1, 1, 4 * size, 8 * size)
        maps = convolutions(mosaic)
        side, step = convolutions(even[:1]).shape[-1], size // 32
        windows = maps.unfold(2, side, step).unfold(3, side, step)[:, :, :4, :8]
        windows = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, maps.shape[1], side, side)
        found = made.classifier(rest(windows)).softmax(1)
    count = len(found)
    other = (found.argmax(1) != expected.argmax(1)).float().mean()
    largest = (found - expected).abs().max()
    print(f"\none pass against tiles: another class in {other:.1%} of {count} tiles, |dp| up to {largest:.3f}")


def memory(folder: Path) -> None:
    """Peak memory of processes that inspect a strip of 2048 x 10,000, and one ten times as long."""
    build(folder)
    band = long_strip()[:HIGH, :WIDE]
    for height in (10_000, 100_000):
        path = folder / "long.bmp"
        with path.open("wb") as file:
            header = Image.new("L", (2048, 2))
            header.save(file, "BMP")
            file.seek(18)
            file.write((2048).to_bytes(4, "little") + height.to_bytes(4, "little"))
            file.seek(0, os.SEEK_END)
            file.seek(-2 * 2048, os.SEEK_END)
            for _ in range(height // len(band)):
                file.write(band[::-1].tobytes())
        code = f"""
            from pathlib import Path
            from steelshift.data.table import Place
            from steelshift.inspection import exported, strip
            judge = exported.load(Path({str(folder / "exported")!r}), *{RUNTIME})
            Path("/proc/self/clear_refs").write_text("5")  # the peak of loading is not meant
            place = Place(Path({str(path)!r}), None)
            strip.inspect_into(judge, [place], Path({str(folder / "long.csv")!r}), strip.Layout({SIZE}), None, print)
            print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
        """
        done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
        print(f"2048 x {height}: " + done.stdout.strip().splitlines()[-1], flush=True)
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=None, help="folder to work in; a temporary one by default")
    parser.add_argument("--only", choices=("throughput", "one_pass", "memory"), default=None)
    parser.add_argument("--run", type=Path, default=None, help="a trained run, for `one_pass` alone")
    arguments = parser.parse_args()
    if arguments.run:
        one_pass(Path(), arguments.run)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        build(folder)
        for part in (throughput, one_pass, memory):
            if arguments.only in (None, part.__name__):
                part(folder)


if __name__ == "__main__":
    main()
