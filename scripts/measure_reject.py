"""How well the reject option works: images of a class that nobody taught, and errors on what is accepted.

    .venv/bin/python scripts/measure_reject.py run --out reject --pairs "drawn, middle"     # train; resumable
    .venv/bin/python scripts/measure_reject.py table reject --pairs "drawn, middle"         # figures from what is there

Every class of a pair is left out in turn: an inspector is fitted without it on both lines, then asked about all images
of the line, that class included. Once none is left out. What each inspector answers is kept as arrays, so that scores
can be compared without training again. Pairs are those of PAIRS; the names in DEVELOPMENT may be chosen on, all others
are only reported.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from steelshift.adapt import fit
from steelshift.bench.pairs import prepare
from steelshift.bench.suite import Pair
from steelshift.candidates import prepared_rows
from steelshift.data.cache import cache_pixels
from steelshift.data.table import find_classes, load_classes, read_images, read_labels
from steelshift.files import write_atomically, write_text
from steelshift.inspection import inspector as artifact
from steelshift.training.config import Config

DATA = Path(os.environ.get("STEELSHIFT_DATA", "absent"))
PAIRS = {
    "drawn, noisy camera": Pair(synthetic="examples/noisy-camera.yaml", images=700),
    "drawn, middle": Pair(synthetic="middle", images=700),
    "NEU-CLS, camera mild": Pair(photographed=DATA / "NEU-CLS", shift="mild"),
    "NEU-CLS, camera middle": Pair(photographed=DATA / "NEU-CLS", shift="middle"),
    "X-SDD, camera middle": Pair(photographed=DATA / "X-SDD", shift="middle"),
    "NEU-CLS to X-SDD": Pair(
        source=(DATA / "NEU-CLS",), target=(DATA / "X-SDD",), classes=DATA / "pairs" / "neu-xsdd.yaml"
    ),
}
DEVELOPMENT = ("drawn, noisy camera", "drawn, middle", "NEU-CLS, camera mild")
NONE = "none"
SETTINGS = {"size": 96, "batch": 24, "steps": 300, "pretrain_steps": 300, "candidates": 3, "save_every": 1000}
PARTS = {"train": 0, "val": 1, "test": 2}


def run(out: Path, pairs: list[str], method: str, most: int) -> int:
    """Train what is missing, `most` inspectors at the most; returns how many are still missing."""
    missing = []
    for name in pairs:
        ready = prepare(name.replace(" ", "-").replace(",", ""), PAIRS[name], out / "data")
        classes = load_classes(PAIRS[name].classes) if PAIRS[name].classes else find_classes(ready.source)
        for left_out in (NONE, *classes.names):
            if not (out / "arrays" / method / name / f"{left_out}.npz").exists():
                missing.append((name, ready, classes, left_out))
    for name, ready, classes, left_out in missing[:most]:
        print(f"{name}: without {left_out}", file=sys.stderr, flush=True)
        one(out, name, ready, classes, left_out, method)
    return max(0, len(missing) - most)


def one(out: Path, name: str, ready, classes, left_out: str, method: str) -> None:
    folder = out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    kept = [n for n in classes.names if n != left_out]
    holders = {n: [f for f, index in classes.holders.items() if classes.names[index] == n] for n in kept}
    write_text(out / "classes.yaml", json.dumps(holders, ensure_ascii=False))
    config = Config(source=ready.source, target=ready.target, out=folder, classes=out / "classes.yaml", method=method,
                    cache=ready.cache, oracle=False, **SETTINGS)  # fmt: skip
    fit(config)
    inspector = artifact.load(folder)
    lock = json.loads((folder / "data.lock.json").read_text(encoding="utf-8"))
    parts = {row["id"]: PARTS[part] for part in PARTS for row in lock["source"].get(part, [])}
    parts |= {row: PARTS[part] for part in ("train", "test") for row in lock["target"][part]}
    arrays = {"classes": np.array(classes.names), "kept": np.array([classes.names.index(n) for n in kept]),
              "temperature": np.array(inspector.specification.temperature)}  # fmt: skip
    for line, places in (("source", ready.source), ("target", ready.target)):
        cache = cache_pixels(read_images(places, classes, labelled=True), ready.cache)
        found = artifact.answers(inspector, prepared_rows(cache, inspector.specification.size))
        arrays |= {
            f"{line}_features": found.features.astype(np.float16), f"{line}_logits": found.logits,
            f"{line}_label": read_labels(places, classes, cache.table),
            f"{line}_part": np.array([parts.get(row, -1) for row in cache.table.ids]),
        }  # fmt: skip
    for key in ("classifier.weight", "classifier.bias"):
        arrays[key] = inspector.state_dict()[key].numpy()
    path = out / "arrays" / method / name / f"{left_out}.npz"
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run",))
    parser.add_argument("--out", type=Path, default=Path("reject"))
    parser.add_argument("--pairs", nargs="+", default=list(DEVELOPMENT))
    parser.add_argument("--method", default="bridge")
    parser.add_argument("--most", type=int, default=1 << 30, help="inspectors trained before it ends, with code 3")
    options = parser.parse_args()
    return 3 if run(options.out, options.pairs, options.method, options.most) else 0


if __name__ == "__main__":
    sys.exit(main())
