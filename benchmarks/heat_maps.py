"""How near heat maps come to pixel masks, and what they cost.

    python benchmarks/heat_maps.py RUN MASKS

RUN: a run of `fit`; its source images that were not trained on (validation and test) are judged. MASKS: a folder of
masks, white on the defect, named as the images. For the maps of the inspector, of the same network with random weights
(mean of three), of a centred blob, and of the two factors of a map alone, the network's evidence and the image's
contrast: how often the hottest pixel lies
on the defect, and the area under the ROC curve of heat against mask, per image, then averaged. Heat is that of the
class the network answers. Whole images of defects alone (masks that are empty or full) say nothing and are left out.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from scipy.stats import rankdata

from steelshift.data.decode import decode
from steelshift.data.tiles import read_mask
from steelshift.inspection.inspector import Inspector, load
from steelshift.inspection.sharpen import contrast, sharpen

BATCH = 32
RANDOM = 3


def images_of(run: Path, masks: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pixels uint8 (H, W, C) and masks bool (H, W) of source images that were not trained on."""
    lock = json.loads((run / "data.lock.json").read_text(encoding="utf-8"))["source"]
    marks = {path.stem: path for path in masks.rglob("*") if path.is_file()}
    images, wanted = [], []
    for row in [*lock["val"], *lock["test"]]:
        path = Path(row["path"])
        if path.stem not in marks:
            continue
        pixels = decode(path.read_bytes()).pixels
        mark = read_mask(marks[path.stem])
        if "#" in row["id"]:
            x, y, width, height = map(int, row["id"].partition("#")[2].split(","))
            pixels, mark = pixels[y : y + height, x : x + width], mark[y : y + height, x : x + width]
        if mark.any() and not mark.all():
            images.append(pixels)
            wanted.append(mark)
    return images, wanted


def judged(maps: list[np.ndarray], masks: list[np.ndarray]) -> tuple[float, float]:
    """Pointing game and AUROC, both 0 to 1; each map is brought to the size of its mask."""
    hits, areas = [], []
    for heat, mask in zip(maps, masks, strict=True):
        size = mask.shape[::-1]
        heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        hits.append(mask.flat[heat.argmax()])
        ranks, count = rankdata(heat)[mask.ravel()], int(mask.sum())
        areas.append((ranks.sum() - count * (count + 1) / 2) / (count * (mask.size - count)))
    return float(np.mean(hits)), float(np.mean(areas))


def maps_of(inspector: Inspector, prepared: torch.Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Heat maps, and the evidence that they are made from."""
    maps: list[np.ndarray] = []
    evidence: list[np.ndarray] = []
    for part in prepared.split(BATCH):
        with torch.no_grad():
            best = inspector.logits(part).argmax(1)
        maps.extend(inspector.heat_maps(part, best).numpy())
        evidence.extend(inspector.evidence(part, best).numpy())
    return maps, evidence


def cost(inspector: Inspector, images: list[np.ndarray]) -> tuple[float, float]:
    """Share of the time of scores that a second pass for heat maps adds, and that sharpening alone does: medians."""
    group = np.stack([image for image in images if image.shape == images[0].shape][:BATCH])
    prepared = inspector.prepare(torch.from_numpy(group))
    grey = prepared[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()
    evidence = np.random.default_rng(0).random((len(group), 6, 6), np.float32)
    best = torch.from_numpy(inspector.score([group]).argmax(1))
    jobs = {
        "scores": lambda: inspector.score([group]),
        "maps": lambda: inspector.heat_maps(prepared, best),
        "sharpening": lambda: [sharpen(*pair) for pair in zip(evidence, grey, strict=True)],
    }
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(7):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            spent[name].append(time.perf_counter() - began)
    scores, maps, sharpening = (median(times[1:]) for times in spent.values())
    return maps / scores, sharpening / scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("masks", type=Path)
    arguments = parser.parse_args()
    inspector = load(arguments.run)
    images, masks = images_of(arguments.run, arguments.masks)
    with torch.no_grad():
        prepared = torch.cat([inspector.prepare(torch.from_numpy(image[None].copy())) for image in images])
    axis = np.linspace(-1, 1, 64)
    blob = np.exp(-2 * (axis[:, None] ** 2 + axis**2))
    random = []
    for seed in range(RANDOM):
        torch.manual_seed(seed)
        maps = maps_of(Inspector(inspector.specification), prepared)
        random.append([judged(each, masks) for each in maps])
    maps, evidence = maps_of(inspector, prepared)
    grey = prepared[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()
    rows = {
        "heat maps": judged(maps, masks),
        "heat maps, random weights": tuple(np.mean(random, axis=0)[0]),
        "evidence alone": judged(evidence, masks),
        "evidence alone, random weights": tuple(np.mean(random, axis=0)[1]),
        "contrast alone": judged([contrast(image) for image in grey], masks),
        "centred blob": judged([blob] * len(masks), masks),
    }
    print(f"{arguments.run.name}: {len(masks)} images, {np.mean([mask.mean() for mask in masks]):.1%} of pixels marked")
    print("\n| | pointing game | AUROC |\n|---|---|---|")
    for name, (hit, area) in rows.items():
        print(f"| {name} | {hit:.3f} | {area:.3f} |")
    second, sharpening = cost(inspector, images)
    print(f"\nof the time of scores in torch, maps of all images add {second:.0%}, sharpening alone {sharpening:.0%}")


if __name__ == "__main__":
    main()
