"""Two tiny synthetic lines on disk, and a configuration that trains on them in seconds."""

from pathlib import Path
from typing import Any

from steelshift.data.camera import SHIFTS
from steelshift.data.synthetic import write_lines
from steelshift.training.config import Config


def tiny_lines(folder: Path, images: int = 84) -> Path:
    """folder/lines/source and folder/lines/target, 200 px, seven classes."""
    write_lines(folder / "lines", shift=SHIFTS["mild"], images=images, seed=3)
    return folder / "lines"


def tiny_config(lines: Path, out: Path, **options: Any) -> Config:
    """A run of a few steps on 64 pixels."""
    defaults = {
        "source": (lines / "source",),
        "target": (lines / "target",),
        "method": "iadsa",
        "size": 64,
        "batch": 8,
        "steps": 6,
        "pretrain_steps": 4,
        "save_every": 2,
        "candidates": 3,
        "oracle": False,
    }
    return Config(**(defaults | options), out=out)
