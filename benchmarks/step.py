"""How long one training step takes, against a plain one and against pytorch-adapt's, in one run on one machine.

    .venv-peers/bin/python benchmarks/step.py --encoder alexnet --batch 32

Every contender trains the same architecture with AdamW on as many images of one size; plain and pytorch-adapt as a user
writes them, in fp32 on three channels, and plain once more in bf16 with channels last. Rounds go through all of them in
turn, so that a slow moment of the machine hits each alike. Prints a table of medians, and where steelshift's time goes:
its own multiplications as a share of the fastest bf16 matrix product of this run. Needs an idle machine. Without
pytorch-adapt its column stays empty.
"""

import argparse
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from steelshift.data.cache import cache_pixels
from steelshift.data.camera import SHIFTS
from steelshift.data.stream import SourceBatch, SourceStream, TargetBatch, TargetStream
from steelshift.data.synthetic import write_lines
from steelshift.data.table import read_images
from steelshift.memory import keep_memory
from steelshift.methods import METHODS
from steelshift.methods.method import Start
from steelshift.nn.encoders import build_encoder
from steelshift.nn.heads import task_classifier
from steelshift.training import loop
from steelshift.training.checkpoint import Progress
from steelshift.training.config import Config, resolve
from steelshift.training.precision import choose, describe, without_denormals

CLASSES = 6
HIDDEN = 1024
PARTS = {
    "convolutions": ("convolution", "_Convolve", "mkldnn_conv"),
    "matrix products, those of narrow convolutions among them": ("mm", "linear", "matmul"),
    "optimizer": ("adam", "Optimizer", "vector_norm", "foreach", "clip"),
}


class Plain(nn.Module):
    """AlexNet's convolutions with a bottleneck, or another network of torchvision, on three channels."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        whole = torchvision.models.get_model(name, weights=None)
        if name == "alexnet":
            places = whole.features(torch.zeros(1, 3, size, size)).flatten(1).shape[1]
            self.trunk = nn.Sequential(whole.features, nn.Flatten(), nn.Linear(places, 256), nn.ReLU())
            self.width = 256
        else:
            self.width = whole.fc.in_features
            whole.fc = nn.Identity()
            self.trunk = whole

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(images)


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context, features):
        return features.view_as(features)

    @staticmethod
    def backward(context, gradient):
        return -gradient


def discriminator(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(), nn.Linear(HIDDEN, 1))


def plain_step(name: str, size: int, batch: int, bf16: bool = False) -> Callable[[], None]:
    """DANN as a page of PyTorch writes it, one pass over both lines: fp32, or bf16 and channels last."""
    torch.manual_seed(0)
    encoder = Plain(name, size)
    classifier, judge = nn.Linear(encoder.width, CLASSES), discriminator(encoder.width)
    modules = nn.ModuleList([encoder, classifier, judge]).train()
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-4)
    images, labels = torch.rand(2 * batch, 3, size, size), torch.arange(batch) % CLASSES
    lines = (torch.arange(2 * batch) < batch).float()[:, None]
    if bf16:
        encoder.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            features = encoder(images)
            loss = F.cross_entropy(classifier(features[:batch]).float(), labels)
            loss = loss + F.binary_cross_entropy_with_logits(judge(Reverse.apply(features)).float(), lines)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def adapt_step(name: str, size: int, batch: int) -> Callable[[], None] | None:
    """pytorch-adapt's DANN, as its documentation calls it; None where it is not installed."""
    try:
        from pytorch_adapt.hooks import DANNHook
        from pytorch_adapt.weighters import MeanWeighter
    except ImportError:
        return None
    torch.manual_seed(0)
    encoder = Plain(name, size).train()
    classifier = nn.Linear(encoder.width, CLASSES)
    judge = nn.Sequential(discriminator(encoder.width), nn.Flatten(0))  # it wants one dimension
    optimizers = [torch.optim.AdamW(module.parameters(), lr=1e-4) for module in (encoder, classifier, judge)]
    hook = DANNHook(optimizers, weighter=MeanWeighter())
    data = {
        "src_imgs": torch.rand(batch, 3, size, size), "target_imgs": torch.rand(batch, 3, size, size),
        "src_labels": torch.arange(batch) % CLASSES,
        "src_domain": torch.zeros(batch), "target_domain": torch.ones(batch),
    }  # fmt: skip
    models = {"G": encoder, "C": classifier, "D": judge}
    return lambda: hook({**models, **data}) and None


def our_step(method: str, name: str, size: int, batch: int) -> tuple[Callable[[], None], nn.Module]:
    """One step of the loop, on batches that are ready."""
    place = Path("nowhere")
    config = resolve(Config(source=(place,), target=(place,), out=place, method=method, encoder=name))
    fast = choose("cpu", "auto")
    torch.manual_seed(0)
    encoder = build_encoder(name, size)
    start = Start(encoder, task_classifier(encoder.width, CLASSES), "joint", epoch=20)
    trained = METHODS[method](start, config.knobs)
    for child in trained.children():
        child.to(memory_format=fast.memory_format)
    optimizers = loop._optimizers(trained, config)
    trained.train()
    images = torch.rand(2, batch, 1, size, size) * 255
    source = SourceBatch(images[0], {"class": torch.arange(batch) % CLASSES})
    always = [[source] * 1000, [TargetBatch(images[1], images[1])] * 1000]
    phase = types.SimpleNamespace(number=1, steps=1000, source=always[0], target=always[1])
    count = [0]

    def step() -> None:
        values = loop._step(phase, trained, optimizers, config, fast, Progress(count[0] % 1000))
        assert values is not None, "a loss that is no number"
        count[0] += 1

    return step, trained


def peak_of_bf16() -> float:
    """Multiplications a second, times 2, of the fastest bf16 matrix product."""
    best = 0.0
    for side in (1024, 2048, 4096):
        left, right = torch.randn(2, side, side).bfloat16()
        for _ in range(3):
            left @ right
        for _ in range(10):
            began = time.perf_counter()
            left @ right
            best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def multiplications(step: Callable[[], None]) -> int:
    """Of one step, forward and backward, times 2."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def parts_of(step: Callable[[], None]) -> dict[str, float]:
    """Milliseconds of a step by part, by the profiler."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(3):
            step()
    spent = dict.fromkeys([*PARTS, "rest"], 0.0)
    for event in found.key_averages():
        part = next((part for part, words in PARTS.items() if any(word in event.key for word in words)), "rest")
        spent[part] += event.self_cpu_time_total / 3000
    return spent


def whole_step(method: str, name: str, size: int, batch: int, steps: int = 200) -> float:
    """Seconds a step of the whole loop: drawing batches, logging, a candidate, a checkpoint before and after."""
    _, trained = our_step(method, name, size, batch)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_lines(folder / "lines", shift=SHIFTS["mild"], images=140, seed=0)
        cache = cache_pixels(read_images([folder / "lines" / "source"]), folder)
        config = resolve(Config(source=(folder,), target=(folder,), out=folder, method=method, encoder=name))
        drawing = {
            "cache": cache,
            "batch": batch,
            "size": size,
            "augmentation": config.augmentation,
            "seed": 0,
            "bf16": choose("cpu", "auto").bf16,
        }
        source = SourceStream(labels={"class": np.arange(len(cache)) % CLASSES}, **drawing)
        phase = loop.Phase(method, 1, source, TargetStream(**drawing), steps, folder / "run")
        began = time.perf_counter()
        loop.train(phase, trained, config, choose("cpu", "auto"))
        return (time.perf_counter() - began) / steps


@without_denormals()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", nargs="+", default=["alexnet", "resnet18"])
    parser.add_argument("--batch", nargs="+", type=int, default=[16, 32], help="images a line")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--loop", action="store_true", help="also what the whole loop adds to a step; takes long")
    options = parser.parse_args()
    keep_memory()
    print(", ".join(f"{key} {value}" for key, value in describe(choose("cpu", "auto")).items()))
    peak = peak_of_bf16()
    print(f"fastest bf16 product: {peak / 1e12:.2f} TFLOP/s\n")
    print("| encoder | images | " + " | ".join(CONTENDERS) + " | plain / dann | pytorch-adapt / dann | iadsa / dann |")
    print("|---" * (5 + len(CONTENDERS)) + "|")
    notes = []
    for name in options.encoder:
        for batch in options.batch:
            steps = {key: make(name, options.size, batch) for key, make in CONTENDERS.items()}
            steps = {key: step for key, step in steps.items() if step is not None}
            spent: dict[str, list[float]] = {key: [] for key in steps}
            for number in range(options.rounds + 2):
                for key, step in steps.items():
                    began = time.perf_counter()
                    step()
                    if number >= 2:
                        spent[key].append(time.perf_counter() - began)
            median = {key: float(np.median(values)) for key, values in spent.items()}
            ratio = {
                "plain": median["plain fp32"] / median["dann"],
                "adapt": median.get("pytorch-adapt", float("nan")) / median["dann"],
                "iadsa": median["iadsa"] / median["dann"],
            }
            shown = [f"{1e3 * median[key]:.0f} ms" if key in median else "-" for key in CONTENDERS]
            shown += [f"{value:.2f}" for value in ratio.values()]
            print(f"| {name} | {batch} + {batch} | " + " | ".join(shown) + " |", flush=True)
            flops = multiplications(steps["dann"])
            parts = ", ".join(f"{part} {value:.0f} ms" for part, value in parts_of(steps["dann"]).items())
            share = 100 * flops / median["dann"] / peak
            notes.append(f"{name} {batch} + {batch}: dann reaches {share:.0f} % of the fastest product; {parts}")
            for method in ("dann", "iadsa") if options.loop else ():
                whole = whole_step(method, name, options.size, batch)
                beside = 100 * (whole / median[method] - 1)
                notes.append(f"{name} {batch} + {batch}: the loop adds {beside:.1f} % to a {method} step")
    print("\n" + "\n".join(notes))
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")
    return 0


CONTENDERS: dict[str, Callable[[str, int, int], Callable[[], None] | None]] = {
    "plain fp32": plain_step,
    "plain bf16": lambda name, size, batch: plain_step(name, size, batch, bf16=True),
    "pytorch-adapt": adapt_step,
    "dann": lambda name, size, batch: our_step("dann", name, size, batch)[0],
    "iadsa": lambda name, size, batch: our_step("iadsa", name, size, batch)[0],
}


if __name__ == "__main__":
    sys.exit(main())
