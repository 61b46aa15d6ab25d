"""What one pass for many tasks takes against one network's, beside the ratio of their multiplications, in one run.

    .venv/bin/python benchmarks/multitask.py --encoder alexnet vgg16 --size 224 --tasks 4

For every encoder and every way of sharing: median seconds of a forward pass over a batch (evaluation, and a training
step's forward and backward), divided by those of a single network of the same form, and that divided by the ratio of
multiplications that the sharing implies. Rounds go through all of them in turn. Needs an idle machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from steelshift.nn.encoders import build_encoder
from steelshift.nn.sharing import SCHEDULE, measure_sharing, sharing_of
from steelshift.training.precision import choose, describe, without_denormals

KINDS = ("progressive", "hard", "cross_stitch", "separate")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", nargs="+", default=["alexnet", "vgg16"])
    parser.add_argument("--feature", default="fc7", help="of AlexNet")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clock", default="wall", choices=["wall", "process"], help="process: of one thread")
    options = parser.parse_args()
    fast = choose(options.device, options.precision)
    print(" ".join(f"{key}={value}" for key, value in describe(fast).items()))
    print("| encoder | sharing | multiplications | inference, time | against that | training, time | against that |")
    print("|---" * 7 + "|", flush=True)
    for name in options.encoder:
        made = {"one network": build_encoder(name, options.size, feature=options.feature)}
        flops = {}
        for kind in options.kinds:
            sharing = sharing_of(kind, SCHEDULE, options.tasks)
            made[kind] = build_encoder(name, options.size, feature=options.feature, sharing=sharing)
            images = torch.zeros(1, made[kind].channels, options.size, options.size)
            flops[kind] = measure_sharing(made[kind].trunk, images)["flops_ratio"]
        images = 255 * torch.rand(options.batch, 1, options.size, options.size, device=fast.device)
        for encoder in made.values():
            encoder.to(fast.device).to(memory_format=fast.memory_format)
        columns = []
        for training in (False, True):
            seconds: dict[str, list[float]] = {kind: [] for kind in made}
            for turn in range(options.rounds + 2):
                for kind, encoder in made.items():
                    took = timed(pass_of(encoder, images, fast, training=training), fast.device, options.clock)
                    if turn >= 2:
                        seconds[kind].append(took)
            one = statistics.median(seconds["one network"])
            columns.append({kind: statistics.median(values) / one for kind, values in seconds.items()})
        for kind in options.kinds:
            cells = [f"{ratio[kind]:.2f} | {ratio[kind] / flops[kind]:.2f}" for ratio in columns]
            print(f"| {name} | {kind} | {flops[kind]:.2f} | {' | '.join(cells)} |", flush=True)
    return 0


def pass_of(encoder: nn.Module, images: torch.Tensor, fast, *, training: bool) -> Callable[[], None]:
    encoder.train(training)

    def run() -> None:
        with torch.set_grad_enabled(training):
            with fast.autocast():
                features = encoder(images)
            if training:
                encoder.zero_grad(set_to_none=True)
                features.float().square().mean().backward()

    return run


def timed(run: Callable[[], None], device: torch.device, clock: str) -> float:
    now = time.process_time if clock == "process" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = now()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now() - began


if __name__ == "__main__":
    with without_denormals():
        raise SystemExit(main())
