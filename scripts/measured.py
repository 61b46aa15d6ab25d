"""Run a command and watch it: what it printed, how long it took, how much memory it held."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

LONGEST = 3600.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Measured:
    code: int
    out: str
    err: str
    seconds: float
    peak_mb: float
    """Largest resident memory without pages of files, which the system takes back when it needs them; looked at every
    20 ms."""


def steelshift(*arguments: object, trace: list[tuple[float, float, int]] | None = None) -> Measured:
    """Run a command of this environment's steelshift to its end.

    trace: gains (seconds since the start, megabytes held, open files) about every 20 ms.
    """
    began = time.monotonic()
    command = [sys.executable, "-m", "steelshift", *map(str, arguments)]
    environment = os.environ | {"STEELSHIFT_LANG": "en"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak, trace), daemon=True)
    watch.start()
    try:
        out, err = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += f"\nTraceback: still running after {LONGEST} s"
    return Measured(process.returncode, out, err, time.monotonic() - began, peak[0])


def _watch(pid: int, peak: list[float], trace: list[tuple[float, float, int]] | None) -> None:
    status, began = Path(f"/proc/{pid}/status"), time.monotonic()
    while True:
        try:
            lines = status.read_text().splitlines()
        except OSError:
            return
        held = [int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")]
        peak[0] = max(peak[0], *held, 0.0)
        if trace is not None and held:
            with contextlib.suppress(OSError):
                trace.append((time.monotonic() - began, held[0], len(os.listdir(f"/proc/{pid}/fd"))))
        time.sleep(0.02)
