"""Record what pytorch-adapt gives for losses that steelshift has too; tests/test_losses.py compares with them.

    python -m venv peers && peers/bin/pip install -r benchmarks/requirements-peers.txt
    peers/bin/python scripts/record_losses.py > tests/recorded_losses.json

Imports nothing of steelshift. Inputs are drawn by numpy's default_rng, which every version draws alike.
"""

import json

import numpy as np
import torch
from pytorch_adapt.layers import CORALLoss, DiversityLoss, EntropyLoss, MCCLoss, MCDLoss, MMDLoss

BANDWIDTH = 3.0


def main() -> None:
    rng = np.random.default_rng(0)
    source, target = (torch.from_numpy(rng.normal(mean, 1, (12, 6))) for mean in (0.0, 0.5))
    one, other = (torch.from_numpy(rng.normal(0, 2, (12, 4))) for _ in range(2))
    # Ours divides by 2 scale bandwidth, theirs multiplies by scale / bandwidth; ours are .125 to 2.
    scales = torch.tensor([1 / (2 * scale) for scale in (0.125, 0.25, 0.5, 1.0, 2.0)])
    kernel = MMDLoss(kernel_scales=scales, mmd_type="quadratic", bandwidth=BANDWIDTH)
    joint = MMDLoss(kernel_scales=scales, mmd_type="quadratic", bandwidth=BANDWIDTH)
    found = {
        "mmd": kernel(source, target),
        "jmmd": joint([source, one], [target, other]),
        "coral": CORALLoss()(source, target),
        "mcc": MCCLoss(T=2.5)(one),
        "mcd": MCDLoss()(one, other),
        "entropy": EntropyLoss()(one),
        "diversity": DiversityLoss()(one),
    }
    print(json.dumps({name: float(value) for name, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
