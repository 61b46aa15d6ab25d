"""What an image costs in a folder of a thousand, of ten thousand and of a hundred thousand.

    .venv/bin/python benchmarks/linear.py --images 1000 10000 100000

For each number, in a process of its own: listing and hashing, decoding into the cache, duplicates and split, and
`inspect` of the inspector of a small run. Prints microseconds an image and megabytes of memory (without pages of
files), and each against the smallest folder. Then how many images a second `synth` draws.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

STAGES = ("list and hash", "decode and cache", "duplicates and split", "inspect", "open the cache again")
DRAWN = 400
SIDE = 96


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--work", type=Path, default=None, help="folder to work in; a temporary one by default")
    parser.add_argument("--one", nargs=2, type=Path, metavar=("FOLDER", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        run = small_run(work)
        base = None
        print("| images | " + " | ".join(STAGES) + " | all, against the smallest | memory |")
        print("|---" * (len(STAGES) + 3) + "|")
        for count in options.images:
            folder = work / f"{count}"
            write_images(folder, count)
            found = json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--one", folder, run], check=True, capture_output=True, text=True
                ).stdout
            )
            each = [1e6 * found["seconds"][stage] / count for stage in STAGES]
            base = base or sum(each)
            cells = [f"{value:.0f} us" for value in each]
            print(f"| {count} | {' | '.join(cells)} | {sum(each) / base:.2f} | {found['mb']:.0f} MB |", flush=True)
    from steelshift.data.camera import SHIFTS
    from steelshift.data.synthetic import write_lines

    with tempfile.TemporaryDirectory() as temporary:
        began = time.perf_counter()
        write_lines(Path(temporary) / "lines", shift=SHIFTS["middle"], images=300, seed=0)
        print(f"\nsynth: {600 / (time.perf_counter() - began):.0f} images a second")
    return 0


def one(folder: Path, run: Path) -> dict:
    """Seconds of every stage on one folder, and the most memory held."""
    from steelshift.data.cache import cache_pixels
    from steelshift.data.splits import split
    from steelshift.data.table import every_place, read_images
    from steelshift.inspection.inspector import load
    from steelshift.inspection.rows import inspect_images, write_rows

    inspector = load(run)
    first = list(every_place([folder]))[:100]
    for _ in inspect_images(inspector, first):  # what only the first images of a process cost is not measured
        pass
    held = [0.0]
    threading.Thread(target=_watch, args=(held,), daemon=True).start()
    seconds = {}

    def timed(stage: str, work: Callable) -> object:
        began = time.perf_counter()
        found = work()
        seconds[stage] = time.perf_counter() - began
        return found

    with tempfile.TemporaryDirectory() as temporary:
        table = timed("list and hash", lambda: read_images([folder]))
        cache = timed("decode and cache", lambda: cache_pixels(table, Path(temporary)))
        strata = np.zeros(len(cache), int)
        ratios = {"train_ratio": 0.8, "val_ratio": 0.1, "seed": 0}
        timed("duplicates and split", lambda: split(cache.table, cache.digests, strata, **ratios))
        timed("open the cache again", lambda: cache_pixels(table, Path(temporary)))
        places = list(every_place([folder]))
        out = Path(temporary) / "rows.csv"
        count = timed("inspect", lambda: write_rows(inspect_images(inspector, places), out))
        assert count == len(cache) == len(places)
    return {"seconds": seconds, "mb": held[0]}


def small_run(work: Path) -> Path:
    command = [sys.executable, "-m", "steelshift"]
    lines, run = work / "lines", work / "run"
    subprocess.run([*command, "synth", "--out", lines, "--images", "84"], check=True, capture_output=True)
    options = ["--size", "64", "--steps", "10", "--pretrain-steps", "10", "--no-oracle"]
    pair = ["--source", lines / "source", "--target", lines / "target"]
    subprocess.run([*command, "fit", *pair, "--out", run, *options], check=True, capture_output=True)
    return run


def write_images(folder: Path, count: int) -> None:
    """Drawn images, moved on by a pixel whenever they repeat: no two alike."""
    from steelshift.data.synthetic import CLASSES, draw

    rng = np.random.default_rng(0)
    drawn = [draw(CLASSES[number % len(CLASSES)], rng, size=SIDE)[0] for number in range(min(DRAWN, count))]
    for number in range(count):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        turn = number // DRAWN
        picture = np.roll(drawn[number % DRAWN], (turn % SIDE, turn // SIDE), (0, 1))
        Image.fromarray(picture).save(place / f"{number:06d}.png", compress_level=1)


def _watch(held: list[float]) -> None:
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        held[0] = max(held[0], *(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")))
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
