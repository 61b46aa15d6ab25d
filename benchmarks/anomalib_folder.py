"""Images a second of anomalib's own TorchInferencer at batch 1, from files: what inspect_folder.py runs as its peer.

    python3.11 -m venv .venv-anomalib && .venv-anomalib/bin/pip install "anomalib==2.7.*"
    .venv-anomalib/bin/python benchmarks/anomalib_folder.py FOLDER 1000

The network is PaDiM on ResNet-18 at 224 px, the lightest that anomalib ships, with random weights and fitted to noise:
speed depends on neither.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import torch

os.environ["TRUST_REMOTE_CODE"] = "1"  # TorchInferencer reads a pickle; this one is written below


def main() -> int:
    from anomalib.deploy import TorchInferencer
    from anomalib.models import Padim

    files = sorted(Path(sys.argv[1]).iterdir())[: int(sys.argv[2])]
    torch.manual_seed(0)
    prepare = Padim.configure_pre_processor(image_size=(224, 224))
    model = Padim(pre_trained=False, pre_processor=prepare, visualizer=False)
    model.model.train()
    for _ in range(8):
        model.model(torch.rand(16, 3, 224, 224))
    model.model.fit()
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": model}, Path(folder) / "model.pt")
        inferencer = TorchInferencer(Path(folder) / "model.pt", device="cpu")
    with torch.inference_mode():
        for file in files[:5]:
            inferencer.predict(file)
        began = time.perf_counter()
        for file in files:
            inferencer.predict(file)
    print(len(files) / (time.perf_counter() - began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
