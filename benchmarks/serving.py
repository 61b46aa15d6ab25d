"""What HTTP adds to an inspector: latency, throughput, overload, slow clients, a killed worker, a swapped inspector.

    .venv/bin/python benchmarks/serving.py --encoder resnet18 --runtime openvino --minutes 10
    .venv/bin/python benchmarks/serving.py --run RUN --images FOLDER

The server has one core, the clients another. `bare` is the inspector alone on the server's core with one thread, from
decoded pixels, measured before the server starts; beside its rate stands the processor time that it takes, which other
programs on the machine change less. Every answer is compared with the rows of `steelshift inspect` on the
same files. Without a run it is an inspector of that encoder which was taught nothing, and images are drawn. Prints a
JSON object a figure; none of them is a gate.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import numpy as np

CLIENTS, MANY, SLOW = 32, 300, 100
IMAGES = 64
SERVER_CORE, CLIENT_CORE = 0, 1
SAME = 1e-5
HOST, PORT = "127.0.0.1", 8093
POST = "POST /v1/inspect HTTP/1.1\r\nHost: x\r\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=None, help="a run, an inspector or an exported folder")
    parser.add_argument("--images", type=Path, default=None, help="folder of image files; 64 of them are sent")
    parser.add_argument("--encoder", default="alexnet")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--minutes", type=float, default=1.0, help="of the load at 80 %%; others are shorter")
    parser.add_argument("--runtime", default=None)
    parser.add_argument("--precision", default=None)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare(options, sent_files(options.images))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        options.images = options.images or drawn(work / "images")
        options.run = options.run or untaught(work, options)
        return asyncio.run(measure(options, sent_files(options.images), work))


def sent_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return files[:: max(1, len(files) // IMAGES)][:IMAGES]


def drawn(folder: Path) -> Path:
    """Synthetic steel as PNG files of 200 x 200."""
    from PIL import Image

    from steelshift.data.synthetic import CLASSES, draw

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(draw(CLASSES[number % len(CLASSES)], rng)[0]).save(folder / f"{number:02d}.png")
    return folder


def untaught(work: Path, options: argparse.Namespace) -> Path:
    """An inspector with random weights, exported where a runtime is asked for: as fast as any other."""
    import torch

    from steelshift.inspection.inspector import Inspector, save
    from steelshift.inspection.specification import Specification

    torch.manual_seed(0)
    made = Inspector(
        Specification(options.encoder, "conv_bottleneck", options.size, tuple("abcdefg"), temperature=0.05)
    )
    rng = np.random.default_rng(0)
    save(made, work / "inspector", "", [rng.integers(0, 256, (200, 200, 1), dtype=np.uint8) for _ in range(2)])
    if options.runtime in (None, "torch"):
        return work / "inspector"
    kinds = ("--format", options.runtime, "--precision", options.precision or "fp32", "--calibrate", options.images)
    kinds = (*kinds, "--verify", options.images)
    output(sys.executable, "-m", "steelshift", "export", work / "inspector", "--out", work / "exported", *kinds)
    return work / "exported"


def kinds(options: argparse.Namespace) -> list[str]:
    given = (("--runtime", options.runtime), ("--precision", options.precision))
    return [word for key, value in given if value for word in (key, value)]


def bare(options: argparse.Namespace, files: list[Path]) -> dict[str, float]:
    """Images a second in batches of 8, and milliseconds of one image, from pixels and from bytes."""
    os.sched_setaffinity(0, {SERVER_CORE})
    from steelshift.data.decode import decode
    from steelshift.inspection.opening import open_inspector
    from steelshift.inspection.specification import score_each
    from steelshift.serving.worker import inspected

    inspector = open_inspector(options.run, options.runtime, options.precision, 1)
    contents = [path.read_bytes() for path in files]
    pixels = [decode(content, bit_depth=inspector.specification.bit_depth).pixels for content in contents]
    eights, ones, whole, spent = [], [], [], []
    for _ in range(6):
        for start in range(0, len(pixels) - 7, 8):
            began, before = time.perf_counter(), time.process_time()
            score_each(inspector, pixels[start : start + 8])
            eights.append(time.perf_counter() - began)
            spent.append(time.process_time() - before)
        for image, content in zip(pixels, contents, strict=True):
            began = time.perf_counter()
            score_each(inspector, [image])
            between = time.perf_counter()
            list(inspected(inspector, [("", content)]))
            whole.append(time.perf_counter() - between)
            ones.append(between - began)
    return {
        "images_s": 8 / float(np.median(eights)),
        "cpu_ms": 1000 / 8 * float(np.median(spent)),
        "one_ms": 1000 * float(np.median(ones)),
        "one_from_bytes_ms": 1000 * float(np.median(whole)),
    }


async def measure(options: argparse.Namespace, files: list[Path], work: Path) -> int:
    places = ("--run", options.run, "--images", options.images)
    alone = json.loads(output(sys.executable, __file__, *places, "--bare", *kinds(options)))
    say("bare", **alone)
    table = work / "rows.jsonl"
    output(sys.executable, "-m", "steelshift", "inspect", options.run, *files, "--out", table, *kinds(options))
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    sent = list(zip((path.read_bytes() for path in files), rows, strict=True))
    os.sched_setaffinity(0, {CLIENT_CORE})
    folder = work / "served"
    shutil.copytree(options.run / "inspector" if (options.run / "inspector").is_dir() else options.run, folder)
    seconds = 60.0 * options.minutes
    with server(folder, options) as (process, ready):
        say("ready", seconds=ready)
        await load(sent, 1, min(3.0, seconds))  # warm
        one = await load(sent, 1, min(10.0, seconds))
        say("one client", **one.figures(), above_bare_ms=one.p(50) - alone["one_ms"])
        before = cpu_seconds(process.pid)
        full = await load(sent, CLIENTS, min(15.0, seconds))
        spent = 1000 * (cpu_seconds(process.pid) - before) / full.statuses[200]
        capacity = full.rate
        shares = {"of_bare": capacity / alone["images_s"], "cpu_ms": spent, "of_bare_by_cpu": alone["cpu_ms"] / spent}
        say("32 clients, as fast as they can", **full.figures(), **shares)
        quiet = await load(sent, CLIENTS, seconds, 0.8 * capacity)
        say("80 %", **quiet.figures(), p99_of_p50=quiet.p(99) / quiet.p(50))
        over = await load(sent, MANY, min(30.0, seconds), 3 * capacity)
        say("300 %", **over.figures(), recovered_s=await recovery(sent, 4 * one.p(50)))
        still = await load(sent, 4, min(20.0, seconds), 0.3 * capacity)
        async with SlowClients():
            slowed = await load(sent, 4, min(20.0, seconds), 0.3 * capacity)
        say("100 slow clients", **slowed.figures(), p99_before=still.p(99), ratio=slowed.p(99) / still.p(99))
        say("a killed worker", **await killed(sent, process, 0.5 * capacity))
        say("a swapped inspector", **await swapped(sent, folder, 0.5 * capacity))
        began = time.monotonic()
        stopping = asyncio.create_task(load(sent, 4, 3.0, 0.3 * capacity))
        await asyncio.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait)
        last = await stopping
        say("stopped", exit=code, seconds=time.monotonic() - began - 1.0, statuses=dict(last.statuses))
    return 0


def output(*command: object) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout


@contextmanager
def server(folder: Path, options: argparse.Namespace) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """The process, and the seconds until it was ready."""
    command = ["serve", folder, "--port", PORT, "--threads", 1, *kinds(options)]
    began = time.monotonic()
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "steelshift", *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        while process.poll() is None:
            with suppress(OSError), urlopen(f"http://{HOST}:{PORT}/readyz") as reply:
                assert reply.status == 200
                break
            time.sleep(0.02)
        yield process, time.monotonic() - began
    finally:
        process.kill()
        process.wait()


class Load:
    """What came of many requests."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[object] = Counter()
        self.inspectors: Counter[str] = Counter()
        self.wrong = 0
        self.took = 0.0

    @property
    def rate(self) -> float:
        return self.statuses[200] / self.took

    def p(self, percent: float) -> float:
        """Milliseconds of answered requests."""
        return 1000 * float(np.percentile(self.seconds, percent)) if self.seconds else float("nan")

    def figures(self) -> dict[str, object]:
        return {
            "statuses": dict(self.statuses), "wrong": self.wrong, "images_s": self.rate,
            "p50_ms": self.p(50), "p99_ms": self.p(99), "most_ms": self.p(100),
        }  # fmt: skip

    def take(self, status: int, body: bytes, row: dict, seconds: float) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)
            answer = json.loads(body)
            found = answer["row"]
            self.inspectors[answer["inspector"]] += 1
            same = (found["class"], found["decision"], found["id"]) == (row["class"], row["decision"], row["id"])
            self.wrong += not (same and abs(found["p"] - row["p"]) <= SAME)


async def load(sent: list, clients: int, seconds: float, rate: float | None = None) -> Load:
    """So many clients, together at a rate of images a second, or each as fast as it is answered.

    A request's time counts from the moment it was due, so that waiting for a client that is late is not left out.
    """
    found = Load()
    began = time.perf_counter()

    async def client(number: int) -> None:
        connection, turn = Connection(), number
        while True:
            now = time.perf_counter() - began
            due = turn / rate if rate else now
            if due > seconds or now > 2 * seconds:
                break
            await asyncio.sleep(due - now)
            content, row = sent[turn % len(sent)]
            try:
                status, body = await connection.post(content)
                found.take(status, body, row, time.perf_counter() - began - due)
            except (OSError, asyncio.IncompleteReadError) as error:
                found.statuses[type(error).__name__] += 1
                connection.close()
            turn += clients
        connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    found.took = time.perf_counter() - began
    return found


class Connection:
    """One that is kept."""

    def __init__(self) -> None:
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, content: bytes) -> tuple[int, bytes]:
        if self.streams is None:
            self.streams = await asyncio.open_connection(HOST, PORT)
        reader, writer = self.streams
        writer.write(f"{POST}Content-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), body

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def recovery(sent: list, usual_ms: float) -> float:
    """Seconds until a request is answered as fast as usual."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        status, _ = await Connection().post(sent[0][0])
        if status == 200 and 1000 * (time.monotonic() - asked) <= usual_ms:
            return time.monotonic() - began
        await asyncio.sleep(0.05)


class SlowClients:
    """A hundred connections that send a letter a second, half of them headers and half a body, and come again."""

    async def __aenter__(self) -> None:
        self.tasks = [asyncio.create_task(self._drip(number)) for number in range(SLOW)]
        await asyncio.sleep(1.0)

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _drip(self, number: int) -> None:
        head = POST.encode()
        if number % 2:
            head += b"Content-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, PORT)
                try:
                    writer.write(head)
                    while not writer.is_closing():
                        await asyncio.sleep(1.0)
                        writer.write(b"x")
                        await writer.drain()
                finally:
                    writer.close()


async def killed(sent: list, process: subprocess.Popen[str], rate: float) -> dict[str, object]:
    """Kill the worker three times under load."""
    running = asyncio.create_task(load(sent, 8, 20.0, rate))
    back = []
    for _ in range(3):
        await asyncio.sleep(4.0)
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        began = time.monotonic()
        await asyncio.sleep(0.05)
        while not await ready():
            await asyncio.sleep(0.02)
        back.append(time.monotonic() - began)
    found = await running
    return {"statuses": dict(found.statuses), "wrong": found.wrong, "back_s": back, "most_ms": found.p(100)}


async def swapped(sent: list, folder: Path, rate: float) -> dict[str, object]:
    """Another inspector, the same but for its card, under load: first half copied, then whole."""
    from steelshift.inspection.sums import write_sums

    running = asyncio.create_task(load(sent, 8, 20.0, rate))
    await asyncio.sleep(3.0)
    (folder / "MODEL_CARD.md").write_text("another\n", encoding="utf-8")
    await asyncio.sleep(7.0)
    write_sums(folder)
    found = await running
    return {
        "statuses": dict(found.statuses), "wrong": found.wrong, "inspectors": len(found.inspectors),
        "p50_ms": found.p(50), "p99_ms": found.p(99), "most_ms": found.p(100),
    }  # fmt: skip


def cpu_seconds(pid: int) -> float:
    """Of the server and its worker."""
    parts = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in (pid, *children(pid))]
    return sum(int(part[11]) + int(part[12]) for part in parts) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def ready() -> bool:
    reader, writer = await asyncio.open_connection(HOST, PORT)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return b" 200 " in line


def say(figure: str, **found: object) -> None:
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    print(json.dumps({"figure": figure, **rounded}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
