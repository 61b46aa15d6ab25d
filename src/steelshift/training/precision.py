"""What this processor does fast: number format and memory layout."""

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from steelshift.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Fast:
    device: torch.device
    bf16: bool
    memory_format: torch.memory_format

    def autocast(self) -> AbstractContextManager:
        # Without the cache: a weight first used under no_grad would get no gradient in some versions of torch.
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16, cache_enabled=False)


def choose(device: str, precision: Precision) -> Fast:
    """bf16 and channels_last where the processor multiplies bf16 in hardware; fp32 and the plain layout elsewhere.

    device: `auto`, or a name that torch knows. Raises UsageError for one that is not there.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UsageError("no_device", name=name) from error
    if precision == "auto":
        able = torch.cuda.is_bf16_supported() if chosen.type == "cuda" else _cpu_multiplies_bf16()
        bf16 = able
    else:
        bf16 = precision == "bf16"
    layout = torch.channels_last if bf16 or chosen.type == "cuda" else torch.contiguous_format
    return Fast(chosen, bf16, layout)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take numbers next to zero for zero: they would slow an adversarial game down tenfold.

    The processor's mode belongs to the whole thread, so it is put back as it was.
    """
    flushed = bool(torch.tensor(1e-45) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)


def describe(fast: Fast) -> dict[str, object]:
    """What env.json records; nothing in it changes between two runs on one machine."""
    return {
        "device": str(fast.device),
        "precision": "bf16" if fast.bf16 else "fp32",
        "memory_format": str(fast.memory_format),
        "threads": torch.get_num_threads(),
        "processor": processor(fast.device),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx": _has("amx_tile"),
        "avx512_bf16": _has("avx512_bf16"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }


def processor(device: torch.device) -> str:
    """The name of what trains, with the number of its cores where that is a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def _cpu_multiplies_bf16() -> bool:
    """By AMX, or by AVX512-BF16 (AlexNet and ResNet-18 train 1.5 to 2 times as fast as in fp32)."""
    return any(_has(name) for name in ("amx_tile", "avx512_bf16"))


def _has(instructions: str) -> bool:
    probe = getattr(torch.cpu, f"_is_{instructions}_supported", None)  # not in every version of torch
    return bool(probe and probe())
