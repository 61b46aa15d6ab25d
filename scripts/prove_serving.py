"""Prove that no request stops the server: mutated images, hand-made nasties, broken forms and heads, slow connections.

    .venv/bin/python scripts/prove_serving.py RUN --mutations 10000

Starts `steelshift serve` on a run, an inspector or an exported folder, and sends all of them over HTTP. Every request
must be answered, none with a status from 500 on; no traceback may come into the log, and neither process may grow with
the number of requests. Prints a JSON object a finding and closes with `N passed, N failed`.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from prove_hostile import flat_png, mutated, nasties, victims

GROWTH = 50.0
"""Megabytes that ten times as many requests may cost each process."""
LONGEST = 2.0
"""Seconds that one image may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as work, Proof(options.run, Path(work) / "log.jsonl") as proof:
        originals = victims(rng)

        def spoiled(count: int) -> Iterable[tuple[str, bytes]]:
            return ((f"{n}.png", mutated(originals[n % len(originals)], originals, rng)) for n in range(count))

        proof.images("a tenth of the mutations", spoiled(options.mutations // 10))
        before = proof.memory()
        proof.images(f"{options.mutations} mutations", spoiled(options.mutations))
        after = proof.memory()
        for name in before:
            grown = after[name] - before[name]
            proof.say(grown < GROWTH, f"memory of the {name}", grown_mb=round(grown, 1), mb=round(after[name], 1))
        proof.images("made by hand", nasties(rng).items())
        proof.large()
        proof.forms(rng)
        proof.heads(rng)
        proof.end()
    print(f"{proof.passed} passed, {proof.failed} failed")
    return 1 if proof.failed else 0


class Proof:
    def __init__(self, run: Path, log: Path) -> None:
        self.passed = self.failed = 0
        self.log = log
        self.file = log.open("w", encoding="utf-8")
        command = [sys.executable, "-m", "steelshift", "serve", str(run), "--port", "0", "--threads", "1"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.file, text=True, env=environment)
        self.port = int(self.process.stdout.readline().rpartition(":")[2])
        while self.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.1)

    def __enter__(self) -> "Proof":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.file.close()

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "image/png") -> tuple[int, dict]:
        """Status and answer, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": kind})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def images(self, what: str, images: Iterable[tuple[str, bytes]]) -> None:
        """One at a time: each is a row or a refusal that says why."""
        statuses: Counter[int] = Counter()
        odd: list[str] = []
        slowest = 0.0
        for name, content in images:
            began = time.monotonic()
            status, answer = self.ask("POST", "/v1/inspect?pictures=true", content)
            slowest = max(slowest, time.monotonic() - began)
            statuses[status] += 1
            right = answer["row"]["class"] if status == 200 else status in (413, 422) and answer["detail"]
            if not right:
                odd.append(f"{name}: {status}")
        self.say(not odd and slowest < LONGEST, what, statuses=dict(statuses), slowest_s=round(slowest, 2), odd=odd[:5])

    def large(self, count: int = 8) -> None:
        """As many of the largest images at once as are looked at together."""
        before, content = self.memory()["worker"], flat_png(6_296)
        with ThreadPoolExecutor(count) as pool:
            statuses = Counter(
                pool.map(lambda _: self.ask("POST", "/v1/inspect?pictures=true", content)[0], range(count))
            )
        kept = self.memory()["worker"] - before
        right = statuses == {200: count} and kept < GROWTH
        self.say(right, f"{count} of 39.6 MP at once", statuses=dict(statuses), kept_mb=round(kept))

    def forms(self, rng: np.random.Generator, count: int = 1000) -> None:
        head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\nContent-Type: image/png\r\n\r\n'
        names = (b"a.png", b"../../etc/passwd", b"\xe5\x9b\xbe\xff", b'"; name="x', b"http://127.0.0.1/", b"%00", b"")
        whole = b"".join(head % name + b"content\r\n" for name in names) + b"--b--\r\n"
        kinds = ("multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary=" + "y" * 300)
        statuses: Counter[int] = Counter()
        for number in range(count):
            content = mutated(whole, [whole], rng) if number else whole
            kind = kinds[0] if number % 10 else kinds[number // 10 % 3]
            statuses[self.ask("POST", ("/v1/inspect:batch", "/v1/inspect")[number % 2], content, kind)[0]] += 1
        self.say(max(statuses) < 500, f"{count} forms", statuses=dict(sorted(statuses.items())))

    def heads(self, rng: np.random.Generator, count: int = 1000) -> None:
        """Spoiled request lines, headers and chunks: a refusal or an end, and the next request is answered."""
        whole = (
            b"POST /v1/inspect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nAccept-Language: zh\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        statuses: Counter[str] = Counter()
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", self.port), timeout=30) as client:
                with suppress(OSError):
                    client.sendall(mutated(whole, [whole], rng))
                    client.shutdown(socket.SHUT_WR)
                    reply = b""
                    while part := client.recv(10_000):
                        reply += part
                statuses[reply[9:12].decode("latin-1") or "none"] += 1
        right = all(status < "500" or status == "none" for status in statuses) and self.ask("GET", "/readyz")[0] == 200
        self.say(right, f"{count} heads", statuses=dict(sorted(statuses.items())))

    def memory(self) -> dict[str, float]:
        """Megabytes without pages of files."""
        pid = self.process.pid
        (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {name: _held(int(each)) for name, each in (("server", pid), ("worker", worker))}

    def end(self) -> None:
        figures = self._metrics()
        self.process.terminate()
        code = self.process.wait(60)
        lines = self.log.read_text(encoding="utf-8").splitlines()
        events = Counter(json.loads(line)["event"] for line in lines)
        failures = [line for line in lines if '"error": "Traceback' in line or '"level": "error"' in line]
        quiet = not failures and set(events) == {"ready", "request", "refused"}
        alive = "inspect_worker_restarts_total 0.0" in figures
        right = code == 0 and quiet and alive
        self.say(right, "the log and the end", exit=code, lines=dict(events.most_common(5)), odd=failures[:2])

    def _metrics(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()

    def say(self, right: bool, what: str, **figures: object) -> None:
        self.passed, self.failed = self.passed + bool(right), self.failed + (not right)
        print(json.dumps({"finding": what, "right": bool(right), **figures}), flush=True)


def _held(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    sys.exit(main())
