"""The server: what it refuses and how, that nothing is lost, that its answers are those of `inspect`, and its page."""

import asyncio
import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from builders import encoded, picture, write
from steelshift.cli import main
from steelshift.inspection import inspector as artifact
from steelshift.inspection.inspector import Inspector
from steelshift.inspection.rows import COLUMNS
from steelshift.inspection.side_by_side import cores
from steelshift.inspection.specification import Specification
from steelshift.inspection.sums import write_sums
from steelshift.serving import engine as engine_module
from steelshift.serving.engine import Source, WorkerEnded
from steelshift.serving.limits import Limits
from steelshift.serving.serve import pixels_of, prepared, size_of

pytestmark = pytest.mark.whole

HASH = "ab" * 32
PNG = {"Content-Type": "image/png"}
EVIL = "<img src=x onerror=document.title=1>"
CLASSES = ("qualified", EVIL, "划痕 </script>")


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and the body, as JSON where it is some."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        content = reply.read()
        kept = {key.lower(): value for key, value in reply.getheaders()}
        return reply.status, kept, json.loads(content) if "json" in kept.get("content-type", "") else content
    finally:
        connection.close()


def form(*files: tuple[str, bytes], field: str = "images") -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


# A server in a thread, whose worker is a stand-in that does as it is told.


class StandIn:
    """What `Worker` is to the engine."""

    def __init__(self) -> None:
        self.inspector = HASH
        self.facts: dict[str, Any] = {"classes": ["a"]}
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[bytes]] = []
        self.dies_of: dict[bytes, int] = {}
        self.alive = True
        self.process = self
        self.pid, self.returncode = 0, 0
        self._ended = asyncio.Event()

    async def wait(self) -> None:
        await self._ended.wait()

    async def look(self, jobs: list[Any], seconds: float) -> AsyncIterator[list[dict[str, Any]]]:
        self.batches.append([job.content for job in jobs])
        await asyncio.to_thread(self.gate.wait, 20)
        for job in jobs:
            if self.dies_of.get(job.content):
                self.dies_of[job.content] -= 1
                raise WorkerEnded
        blank = dict.fromkeys(COLUMNS)
        for job in jobs:
            yield [{"row": blank | {"id": "0", "path": job.name, "decision": "accept", "class": "a"}}]

    async def kill(self) -> None:
        """It is as a new one at once."""

    async def close(self) -> None:
        self._ended.set()


class Running:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, limits: Limits, token: bytes | None, begins: bool) -> None:
        self.workers: list[StandIn] = []

        async def start(source: Source, limits: Limits) -> StandIn:
            if not begins:
                await asyncio.sleep(60)
            self.workers.append(StandIn())
            return self.workers[-1]

        monkeypatch.setattr(engine_module.Worker, "start", start)
        self.server, self.engine = prepared(Source(Path("nowhere")), limits, token)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()
        wait_for(lambda: self.server.started and (self.engine.ready or not begins))

    @property
    def worker(self) -> StandIn:
        return self.workers[-1]

    def stop(self) -> None:
        for worker in self.workers:
            worker.gate.set()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


def wait_for(what: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def run(limits: Limits | None = None, token: bytes | None = None, begins: bool = True) -> Running:
        made.append(Running(monkeypatch, limits or Limits(), token, begins))
        return made[-1]

    yield run
    for each in made:
        each.stop()


def is_problem(reply: tuple[int, dict[str, str], Any], status: int) -> dict[str, Any]:
    found, headers, body = reply
    assert (found, headers["content-type"]) == (status, "application/problem+json"), reply
    assert body["status"] == status and body["title"] and body["detail"]
    assert "default-src 'self'" in headers["content-security-policy"]
    return body


def test_refusals_are_problems(running: Callable[..., Running]) -> None:
    port = running(Limits(images=3)).port
    assert ask(port, "GET", "/livez")[2] == {"state": "alive"}
    is_problem(ask(port, "GET", "/v1/nothing"), 404)
    is_problem(ask(port, "GET", "/v1/inspector/"), 404)
    refused = ask(port, "GET", "/v1/inspect")
    is_problem(refused, 405)
    assert refused[1]["allow"] == "POST"
    for kind in ("", "text/plain", "image/svg+xml", "application/json"):
        is_problem(ask(port, "POST", "/v1/inspect", b"x", {"Content-Type": kind}), 415)
    is_problem(ask(port, "POST", "/v1/inspect:batch", b"x", PNG), 415)
    is_problem(ask(port, "POST", "/v1/inspect?pictures=perhaps", b"x", PNG), 422)
    for body, headers in (
        form(), form(("a", b"1"), ("b", b"2")), (b"no form", form()[1]), (b"", {"Content-Type": "multipart/form-data"}),
    ):  # fmt: skip
        is_problem(ask(port, "POST", "/v1/inspect", body, headers), 422)
    is_problem(ask(port, "POST", "/v1/inspect:batch", *form(*[("a", b"1")] * 4)), 422)
    body, headers = form(("a\\ud800.png", b"1"))
    kind = headers["Content-Type"] + "; charset="
    is_problem(ask(port, "POST", "/v1/inspect", body, {"Content-Type": kind + "undefined"}), 422)
    for charset in ("unicode_escape", "none such"):  # half a character is no text, and comes back escaped
        status, _, found = ask(port, "POST", "/v1/inspect:batch", body, {"Content-Type": kind + charset})
        assert status == 200 and [row["path"] for row in found["rows"]] == ["a\\ud800.png"]
    chinese = is_problem(ask(port, "GET", "/no", None, {"Accept-Language": "zh-CN,en;q=0.5"}), 404)
    assert re.search("[\u4e00-\u9fff]", chinese["detail"])
    status, headers, body = ask(port, "POST", "/v1/inspect:batch", *form(("a/../b", b"1"), ("c", b"2")))
    assert status == 200 and [row["path"] for row in body["rows"]] == ["a/../b", "c"]
    assert headers["steelshift-inspector"] == HASH and body["inspectors"] == [HASH, HASH]


def test_too_much_is_refused_before_it_is_read(running: Callable[..., Running]) -> None:
    limit = 100_000
    port = running(Limits(body=limit)).port
    assert ask(port, "POST", "/v1/inspect", b"x" * limit, PNG)[0] == 200
    is_problem(ask(port, "POST", "/v1/inspect", b"x" * (limit + 1), PNG), 413)
    head = b"POST /v1/inspect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:  # nothing of the body is sent
        client.sendall(head + b"Content-Length: 99999999999\r\n\r\n")
        assert b" 413 " in client.recv(100)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:  # nor its end
        client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with pytest.raises(OSError):
            while sent < 1 << 28:
                client.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
                sent += 0x4000
        assert sent < 1 << 25  # what the system's own buffers took
    wait_for(lambda: 'inspect_requests_total{code="413",path="/v1/inspect"} 3.0' in metrics_of(port))


def metrics_of(port: int) -> str:
    return ask(port, "GET", "/metrics")[2].decode()


def test_all_bodies_together_are_bounded(running: Callable[..., Running]) -> None:
    made = running(Limits(body=100_000, bodies=2))
    made.worker.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(ask, made.port, "POST", "/v1/inspect", b"x" * 100_000, PNG) for _ in range(2)]
        wait_for(lambda: made.server.config.loaded_app.held == 200_000)
        reply = ask(made.port, "POST", "/v1/inspect", b"x", PNG)
        is_problem(reply, 429)
        made.worker.gate.set()
        assert [each.result()[0] for each in first] == [200, 200]
    wait_for(lambda: made.server.config.loaded_app.held == 0)


def raw(port: int, content: bytes) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(content)
        found = b""
        while part := client.recv(10_000):
            found += part
        return found


def test_slow_and_odd_connections_are_ended_and_others_served(running: Callable[..., Running]) -> None:
    made = running(Limits(head=0.5, arriving=0.5, head_bytes=5000, idle=1, connections=60))
    start = b"POST /v1/inspect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    slow = [socket.create_connection(("127.0.0.1", made.port), timeout=10) for _ in range(40)]
    for number, client in enumerate(slow):
        client.sendall((b"", start, start + b"Content-Length: 9\r\n\r\nx")[number % 3])
    assert ask(made.port, "POST", "/v1/inspect", b"x", PNG)[0] == 200
    for client in slow:
        reply = client.recv(5000)
        assert reply.startswith(b"HTTP/1.1 408 ") and b"problem+json" in reply
        client.close()
    for content, status in (
        (b"no http\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 6000, b"431"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (start + b"Content-Length: -1\r\n\r\n", b"400"),
        (start + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
    ):
        reply = raw(made.port, content)
        assert reply.startswith(b"HTTP/1.1 " + status) and b"problem+json" in reply, (content[:60], reply)
    many = [socket.create_connection(("127.0.0.1", made.port), timeout=10) for _ in range(60)]
    assert raw(made.port, b"").startswith(b"HTTP/1.1 503 ")
    for client in many:
        client.close()
    wait_for(lambda: not made.server.server_state.connections)


def test_a_token_is_asked_for(running: Callable[..., Running]) -> None:
    port = running(token=b"s3cret-token").port
    for path in ("/", "/page.js", "/page.css", "/livez", "/readyz"):
        assert ask(port, "GET", path)[0] == 200
    for method, path in (
        ("GET", "/v1/inspector"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("POST", "/v1/inspect"),
    ):
        for given in ({}, {"Authorization": "Bearer s3cret-toke"}, {"Authorization": "Basic s3cret-token"}):
            reply = ask(port, method, path, None, given)
            is_problem(reply, 401)
            assert reply[1]["www-authenticate"].startswith("Bearer")
    assert ask(port, "GET", "/v1/inspector", None, {"Authorization": "bearer s3cret-token"})[0] == 200


def test_images_gather_while_the_worker_is_busy(running: Callable[..., Running]) -> None:
    made = running(Limits(waiting=12, batch=8, answer=20.0))
    made.worker.gate.clear()
    with ThreadPoolExecutor(16) as pool:
        replies = [pool.submit(ask, made.port, "POST", "/v1/inspect", b"0", PNG)]
        wait_for(lambda: made.worker.batches)
        replies += [pool.submit(ask, made.port, "POST", "/v1/inspect", b"%d" % n, PNG) for n in range(1, 13)]
        wait_for(lambda: made.engine.waiting() == 12)
        for _ in range(2):
            full = ask(made.port, "POST", "/v1/inspect", b"13", PNG)
            is_problem(full, 429)
            assert int(full[1]["retry-after"]) >= 1
        assert ask(made.port, "GET", "/livez")[0] == 200
        made.worker.gate.set()
        assert {reply.result()[0] for reply in replies} == {200}
    assert [len(batch) for batch in made.worker.batches] == [1, 8, 4]


def test_late_and_not_ready(running: Callable[..., Running]) -> None:
    made = running(Limits(answer=0.3))
    made.worker.gate.clear()
    is_problem(ask(made.port, "POST", "/v1/inspect", b"x", PNG), 504)
    made.worker.gate.set()
    wait_for(lambda: made.engine.waiting() == 0)
    assert ask(made.port, "POST", "/v1/inspect", b"x", PNG)[0] == 200
    begins = running(begins=False)
    for method, path in (("GET", "/readyz"), ("GET", "/v1/inspector"), ("POST", "/v1/inspect")):
        reply = ask(begins.port, method, path, b"x" if method == "POST" else None, PNG)
        is_problem(reply, 503)
        assert reply[1]["retry-after"] == "1"
    assert ask(begins.port, "GET", "/livez")[0] == 200


def test_images_of_a_dead_worker_are_looked_at_again_and_a_deadly_one_is_named(running: Callable[..., Running]) -> None:
    made = running()
    made.worker.gate.clear()
    made.worker.dies_of = {b"first": 1, b"deadly": 2}
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, made.port, "POST", "/v1/inspect", b"first", PNG)
        wait_for(lambda: made.worker.batches)
        others = [pool.submit(ask, made.port, "POST", "/v1/inspect", b"%d" % n, PNG) for n in range(3)]
        deadly = pool.submit(ask, made.port, "POST", "/v1/inspect", b"deadly", PNG)
        wait_for(lambda: made.engine.waiting() == 4)
        made.worker.gate.set()
        assert {reply.result()[0] for reply in (first, *others)} == {200}
        is_problem(deadly.result(), 422)
    assert made.worker.batches.count([b"deadly"]) == 1  # alone, the second time


def test_what_openapi_says(running: Callable[..., Running]) -> None:
    port = running().port
    described = ask(port, "GET", "/openapi.json")[2]
    assert described["openapi"].startswith("3.1")
    assert set(described["paths"]) == {
        "/v1/inspect",
        "/v1/inspect:batch",
        "/v1/inspector",
        "/livez",
        "/readyz",
        "/metrics",
    }
    (operation,) = described["paths"]["/v1/inspect"].values()
    assert {"413", "415", "422", "429", "503", "504"} <= set(operation["responses"])
    assert "multipart/form-data" in operation["requestBody"]["content"]
    answer = operation["responses"]["200"]["content"]["application/json"]
    assert set(answer["schema"]["properties"]["row"]["properties"]) == set(COLUMNS)
    assert set(COLUMNS) - set(answer["example"]["row"]) == {"error", "tile", "heat_map"}


def test_amounts_and_cores() -> None:
    assert [size_of(text) for text in ("16MiB", "1.5kB", "7", "2 gib")] == [16 << 20, 1500, 7, 2 << 30]
    assert (pixels_of("40MP"), pixels_of("123")) == (40_000_000, 123)
    assert 1 <= cores() <= os.cpu_count()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--host", "127..0.0.1"], 1),
        (["--max-body", "lots"], 2), (["--max-body", "0"], 2), (["--max-pixels", "4GiB"], 2), (["--threads", "0"], 2),
        (["--token-file", "absent"], 2), (["--token-file", "short"], 2), (["--port", "taken"], 1), ([], 4),
    ],
)  # fmt: skip
def test_what_cannot_be_served(
    options: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "short", b"abc")
    write(tmp_path / "run" / "export.json", b"{}")  # an exported folder, and no good one
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = [str(port) if word == "taken" else word for word in options]
        given = ["--port", "0"] if "--port" not in options else []
        with unconfigured_log():
            assert main(["serve", str(tmp_path / "run"), *given, *options]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.strip()


@contextmanager
def unconfigured_log() -> Iterator[None]:
    import logging

    root = logging.getLogger()
    before = root.handlers, root.level
    yield
    root.handlers, root.level = before


# The command itself.


class Served:
    """`steelshift serve` as a process."""

    def __init__(self, folder: Path, log: Path, *options: str) -> None:
        self.log = log
        self.file = log.open("w", encoding="utf-8")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "STEELSHIFT_LANG": "en"}
        command = [sys.executable, "-m", "steelshift", "serve", str(folder), "--port", "0", "--threads", "1", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.file, text=True, env=environment)
        self.address = self.process.stdout.readline().strip()
        self.port = int(self.address.rpartition(":")[2])
        wait_for(lambda: ask(self.port, "GET", "/readyz")[0] == 200, 60)

    @property
    def worker(self) -> int:
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").split("\n")[:-1]]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.file.close()
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inspector that was taught nothing, whose answers differ all the same; one class has a hostile name."""
    torch.manual_seed(3)
    made = Inspector(Specification("alexnet", "conv_bottleneck", 64, CLASSES, temperature=0.02, threshold=0.6))
    golden = [picture(seed)[..., None] for seed in range(3)]
    run = tmp_path_factory.mktemp("served") / "run 一"
    artifact.save(made, run / "inspector", "a card", golden)
    return run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(10):
        write(folder / f"{seed}.png", encoded(picture(seed, 40 + 10 * (seed % 3), 60)))
    write(folder / "deep.tiff", encoded(picture(11, 50, 70).astype(np.uint16) * 257, "TIFF"))
    write(folder / "colour.jpg", encoded(np.stack([picture(seed, 64, 64) for seed in (1, 2, 3)], -1), "JPEG"))
    write(folder / f"{EVIL.replace('/', '')}.png", encoded(picture(12)))
    write(folder / "text.png", b"no image")
    write(folder / "empty.png", b"")
    return folder


@pytest.fixture(scope="module")
def folder(saved: Path) -> Path:
    """The same as a folder of graphs, which no torch is needed for."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra `export` is not installed")
    out = saved.parent / "导出"
    assert main(["export", str(saved), "--out", str(out), "--format", "onnx"]) == 0
    return out


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    made = Served(folder, folder.parent / "log.jsonl")
    yield made
    assert made.stop() == 0


def rows_of(run: Path, images: Path, out: Path) -> dict[str, dict[str, Any]]:
    assert main(["inspect", str(run), str(images), "--out", str(out)]) == 0
    return {Path(row["path"]).name: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """All that is not of the place, the clock, or the order of sums."""
    for key in set(expected) - {"path", "latency_ms", "p", "margin", "strange", "reason"}:
        assert found[key] == expected[key], key
    for key in ("p", "margin"):
        assert (found[key] is None) == (expected[key] is None)
        assert found[key] is None or abs(found[key] - expected[key]) <= 2e-5


def test_answers_are_those_of_inspect_without_torch(served: Served, folder: Path, images: Path, tmp_path: Path) -> None:
    for process in (served.process.pid, served.worker):
        assert "libtorch" not in Path(f"/proc/{process}/maps").read_text()
    expected = rows_of(folder, images, tmp_path / "rows.jsonl")
    assert len({row["class"] for row in expected.values()}) > 1
    for path in images.iterdir():
        status, headers, body = ask(served.port, "POST", "/v1/inspect", path.read_bytes(), PNG)
        if expected[path.name]["error"]:
            assert status == 422 and body["detail"] == expected[path.name]["error"]
        else:
            assert status == 200 and body["inspector"] == headers["steelshift-inspector"]
            same(body["row"], expected[path.name])
    paths = sorted(images.iterdir())
    body = ask(served.port, "POST", "/v1/inspect:batch", *form(*((path.name, path.read_bytes()) for path in paths)))[2]
    for path, row in zip(paths, body["rows"], strict=True):
        same(row, expected[path.name])
        assert row["path"] == path.name


def test_an_inspector_that_needs_torch_is_served_alike(saved: Path, images: Path, tmp_path: Path) -> None:
    expected = rows_of(saved, images, tmp_path / "rows.jsonl")
    made = Served(saved, tmp_path / "log.jsonl")
    try:
        assert "libtorch" not in Path(f"/proc/{made.process.pid}/maps").read_text()  # all of it is the worker's
        for name in ("1.png", "deep.tiff", "colour.jpg"):
            body = ask(made.port, "POST", "/v1/inspect?pictures=1", (images / name).read_bytes(), PNG)[2]
            same(body["row"], expected[name])
            assert body["heat_map"]
    finally:
        assert made.stop() == 0


def test_pictures_are_of_what_was_seen(served: Served, images: Path) -> None:
    body = ask(served.port, "POST", "/v1/inspect?pictures=true", (images / "deep.tiff").read_bytes(), PNG)[2]
    seen, heat = (
        Image.open(io.BytesIO(base64.b64decode(body[key].partition("base64,")[2]))) for key in ("picture", "heat_map")
    )
    assert seen.size == (70, 50) and heat.mode == "RGBA"
    assert np.abs(np.asarray(seen.convert("L")).astype(int) - picture(11, 50, 70)).mean() < 4
    assert np.asarray(heat)[..., 3].std() > 0


def test_names_in_requests_are_text(served: Served, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.png", encoded(picture(1)))
    names = [str(secret), f"file://{secret}", "http://127.0.0.1:1/x.png", "../../../etc/passwd", "\\\\host\\share"]
    body = ask(served.port, "POST", "/v1/inspect:batch", *form(*((name, b"") for name in names)))[2]
    assert [row["decision"] for row in body["rows"]] == ["unreadable"] * len(names)
    status, _, body = ask(served.port, "POST", "/v1/inspect", str(secret).encode(), PNG)
    assert status == 422 and body["title"]


def test_a_killed_worker_is_back_and_no_request_fails(served: Served, images: Path) -> None:
    content = (images / "1.png").read_bytes()
    first = served.worker
    with ThreadPoolExecutor(4) as pool:
        replies = [pool.submit(ask, served.port, "POST", "/v1/inspect", content, PNG) for _ in range(8)]
        os.kill(first, signal.SIGKILL)
        replies += [pool.submit(ask, served.port, "POST", "/v1/inspect", content, PNG) for _ in range(8)]
        assert {reply.result()[0] for reply in replies} == {200}
    assert served.worker != first and ask(served.port, "GET", "/readyz")[0] == 200
    assert "inspect_worker_restarts_total 1.0" in metrics_of(served.port)


def test_the_log_has_a_line_a_request_and_no_image(served: Served, images: Path) -> None:
    content = (images / "2.png").read_bytes()
    _, headers, body = ask(served.port, "POST", "/v1/inspect", content, PNG)
    wait_for(lambda: served.lines()[-1].get("id") == headers["request-id"])  # it is written after the answer
    lines = [line for line in served.lines() if line["event"] == "request"]
    ids = [line["id"] for line in lines]
    assert len(set(ids)) == len(ids)
    (line,) = (line for line in lines if line["id"] == headers["request-id"])
    assert (line["status"], line["path"], line["bytes"]) == (200, "/v1/inspect", len(content))
    assert line["decisions"] == [body["row"]["decision"]] and line["inspector"] == body["inspector"]
    assert max(len(json.dumps(line)) for line in lines) < 1000


def test_the_page_in_a_browser(served: Served, images: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("there is no Chromium on the path")
    told: list[str] = []
    asked: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(locale="en-US")
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(served.address)
        title = page.title()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        readable = [path for path in sorted(images.iterdir()) if path.stat().st_size > 100]
        page.set_input_files("#files", readable)
        cards = page.locator(".card[aria-busy=false]")
        cards.nth(len(readable) - 1).wait_for()
        expected = [ask(served.port, "POST", "/v1/inspect", path.read_bytes(), PNG)[2]["row"] for path in readable]
        for number, (path, row) in enumerate(zip(readable, expected, strict=True)):
            card = cards.nth(number)
            assert card.locator(".name").text_content() == path.name
            assert card.locator(".class").text_content() == row["class"]
            assert card.locator(".p").text_content() == f"{100 * row['p']:.1f}\u00a0%"
            assert card.locator(".second-class").text_content() == row["second_class"]
            assert card.locator(".reason").text_content() == row["reason"]
            assert row["nearest"] is None and not card.locator(".nearest").is_visible()
            for kind in ("picture", "heat"):
                assert card.locator(f".{kind}").evaluate("image => image.complete && image.naturalWidth") > 0
        assert not told, told
        before = cards.first.locator(".chip").text_content()
        page.click("button[data-language=zh]")
        page.locator(".chip", has_text=re.compile("[\u4e00-\u9fff]")).nth(len(readable) - 1).wait_for()
        assert page.get_attribute("html", "lang") == "zh-Hans" and before.isascii() is False
        cards.nth(len(readable) - 1).wait_for()
        assert re.search("[\u4e00-\u9fff]", cards.first.locator(".reason").text_content())
        assert not re.search(
            "[A-Za-z]{4}", page.locator("main > #drop").text_content().replace("JPEG", "").replace("TIFF", "")
        )
        page.set_input_files("#files", images / "text.png")
        page.locator(".card.bad .reason").wait_for()
        assert page.title() == title and page.locator(".card img[onerror]").count() == 0
        assert all(url.startswith((served.address, "data:")) for url in asked), asked
        browser.close()
    assert all("422" in each for each in told), told


def test_another_inspector_takes_over_once_it_is_whole(served: Served, folder: Path, images: Path) -> None:
    content = (images / "3.png").read_bytes()
    before = ask(served.port, "POST", "/v1/inspect", content, PNG)[2]["inspector"]
    replies: list[tuple[int, Any]] = []
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            status, _, body = ask(served.port, "POST", "/v1/inspect", content, PNG)
            replies.append((status, body.get("inspector")))
            time.sleep(0.02)

    def refused() -> bool:
        return any(line["event"] == "swap refused" for line in served.lines())

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        write(folder / "MODEL_CARD.md", b"another")
        write(folder / "SHA256SUMS", (folder / "SHA256SUMS").read_bytes()[:-30])  # half of a change
        wait_for(refused)
        assert {inspector for _, inspector in replies} == {before}
        write_sums(folder)
        wait_for(lambda: replies[-1][1] != before)
    finally:
        over.set()
        asking.join()
    assert {status for status, _ in replies} == {200} and len({inspector for _, inspector in replies}) == 2
