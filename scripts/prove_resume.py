"""Prove that a run survives anything: kill -9 at random moments, a full disk, a folder that cannot be written.

    .venv/bin/python scripts/prove_resume.py --kills 100

Makes two small synthetic lines, trains once undisturbed and three times from the same seed, then kills and resumes the
same run until it is finished, again and again, until there were as many kills as asked for. Every finished run must
hold the same weights, byte for byte, and lose at most one save interval at each kill. Prints a JSON object a finding
and closes with `N passed, N failed`.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="how many times to kill -9")
    parser.add_argument("--steps", type=int, default=40, help="steps of each phase")
    parser.add_argument("--save-every", type=int, default=2, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None, help="folder to work in; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        proof = Proof(options.work or Path(temporary), options)
        proof.same_seed_three_times()
        proof.kills()
        proof.read_only()
        proof.full_disk()
    print(f"{proof.passed} passed, {proof.failed} failed")
    return 1 if proof.failed else 0


class Proof:
    def __init__(self, work: Path, options: argparse.Namespace) -> None:
        self.work = work
        self.options = options
        self.random = random.Random(options.seed)
        self.passed = self.failed = 0
        self.lines = work / "proof-lines"
        subprocess.run(
            self._steelshift("synth", "--out", self.lines, "--images", "70"), check=True, capture_output=True
        )

    def same_seed_three_times(self) -> None:
        began = time.monotonic()
        hashes = []
        for number in range(3):
            run = self.work / f"whole-{number}"
            subprocess.run(self._fit(run), check=True, capture_output=True)
            hashes.append(_weights(run))
        self.seconds = (time.monotonic() - began) / 3
        self.reference = hashes[0]
        self._report("same seed, same weights, three times", len(set(hashes)) == 1, hashes=sorted(set(hashes)))

    def kills(self) -> None:
        """Kill at moments spread over a whole run, so that some fall inside a save."""
        done = attempts = inside = 0
        most_lost = 0
        while done < self.options.kills:
            run = self.work / f"killed-{attempts}"
            attempts += 1
            while done < self.options.kills or not (run / "report.json").exists():
                process = subprocess.Popen(self._fit(run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                if done < self.options.kills:
                    time.sleep(self.random.uniform(0.2, 1.0) * self.seconds / 2)
                    process.send_signal(signal.SIGKILL)
                complaint = process.communicate()[1].decode()
                if process.returncode == 0:
                    break
                if process.returncode != -signal.SIGKILL:
                    self._report("resuming works", False, complaint=complaint[-500:])
                    return
                done += 1
                inside += any(run.rglob("*.tmp"))
                most_lost = max(most_lost, _steps_lost(run))
            same = (run / "report.json").exists() and _weights(run) == self.reference
            self._report("a killed run ends with the same weights", same, run=attempts, kills=done)
            shutil.rmtree(run, ignore_errors=True)
        self._report(
            "at most one interval is lost",
            most_lost <= self.options.save_every,
            most_lost=most_lost,
            kills=done,
            inside_a_save=inside,
        )

    def read_only(self) -> None:
        run = self.work / "read-only"
        process = subprocess.Popen(self._fit(run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(run.glob("checkpoints/source_only/*.json")):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        self._report("SIGTERM leaves with 143", code == 143, code=code)
        before = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
        blocked = run / "checkpoints" / "source_only"
        moved = blocked.with_name("kept")
        blocked.rename(moved)
        blocked.write_text("a file where the folder was: nobody, not even root, can write here")
        failed = subprocess.run(self._fit(run), capture_output=True, text=True)
        clear = failed.returncode == 1 and "Traceback" not in failed.stderr and "Cannot write" in failed.stderr
        self._report(
            "a folder that cannot be written is named", clear, code=failed.returncode, said=failed.stderr[-300:]
        )
        blocked.unlink()
        moved.rename(blocked)
        whole = all(path.read_bytes() == content for path, content in before.items())
        subprocess.run(self._fit(run), check=True, capture_output=True)
        self._report("and nothing was lost", whole and _weights(run) == self.reference)

    def full_disk(self) -> None:
        """A file-size limit stands in for a full disk: every write beyond it fails, and root is not excepted."""
        run = self.work / "full"
        limit = ["bash", "-c", 'ulimit -f 4096; trap "" XFSZ; exec "$@"', "bash"]
        failed = subprocess.run([*limit, *map(str, self._fit(run))], capture_output=True, text=True)
        clear = failed.returncode == 1 and "Traceback" not in failed.stderr and "Cannot write" in failed.stderr
        self._report("a full disk is named", clear, code=failed.returncode, said=failed.stderr[-300:])
        self._report("it leaves no half file", not list(run.rglob("*.tmp")))
        subprocess.run(self._fit(run), check=True, capture_output=True)
        self._report("the run continues to the same weights", _weights(run) == self.reference)

    def _fit(self, run: Path) -> list[object]:
        lines, steps = self.lines, self.options.steps
        return self._steelshift(
            "fit", "--resume", "--out", run, "--source", lines / "source", "--target", lines / "target",
            "--size", "64", "--batch", "8", "--steps", steps, "--pretrain-steps", steps, "--no-oracle",
            "--candidates", "2", "--save-every", self.options.save_every,
        )  # fmt: skip

    def _steelshift(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "steelshift", *map(str, arguments)]

    def _report(self, what: str, right: bool, **figures: object) -> None:
        self.passed += right
        self.failed += not right
        print(json.dumps({"what": what, "right": right, **figures}), flush=True)


def _weights(run: Path) -> str:
    return hashlib.sha256((run / "inspector" / "model.safetensors").read_bytes()).hexdigest()


def _steps_lost(run: Path) -> int:
    """Steps whose metrics were written but whose checkpoint was not: what a kill cost beyond the running interval."""
    newest: dict[str, int] = {}
    for path in run.glob("checkpoints/*/step-*.json"):
        newest[path.parent.name] = max(newest.get(path.parent.name, 0), int(path.stem.split("-")[1]))
    logged: dict[str, int] = {}
    if (run / "metrics.jsonl").exists():
        for line in (run / "metrics.jsonl").read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            logged[record["phase"]] = record["step"] + 1
    return max((step - newest.get(phase, 0) for phase, step in logged.items()), default=0)


if __name__ == "__main__":
    sys.exit(main())
