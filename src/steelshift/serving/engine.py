"""From requests to answers: images wait in a bounded queue and go to a worker process, several at a time.

The worker is a process of its own because what can kill it (a decoder that crashes on a hostile file, memory that runs
out, a runtime that hangs) then takes no connection with it: the server starts another one and gives it the images that
the dead one had not answered. One worker, not several, because a runtime already computes with all threads that it is
allowed and has its weights in memory once.

No image waits for others. While the worker is busy images gather, and it takes up to `Limits.batch` of them when it is
free: alone, an image goes at once, and under load batches are full.

When the folder changes, a second worker reads it. It takes over between two batches if the folder is whole and its
golden examples score as they should; otherwise the one that serves stays.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelshift import errors
from steelshift.errors import SteelshiftError
from steelshift.inspection.opening import fingerprint, place_of
from steelshift.serving import frames
from steelshift.serving.limits import Limits
from steelshift.serving.metrics import Metrics
from steelshift.serving.problems import Refusal

LOOK = 1.0
"""Seconds between two looks at the folder; it is read when it was the same in two of them."""
SECONDS_TO_COME_AGAIN = 1
log = logging.getLogger("steelshift.serving")


@dataclass(frozen=True)
class Source:
    """What the server was started on."""

    folder: Path
    runtime: str | None = None
    precision: str | None = None
    threads: int = 1


@dataclass(eq=False)
class Job:
    """One image on its way."""

    name: str
    content: bytes
    pictures: bool
    language: str
    done: asyncio.Future[tuple[str, dict[str, Any]]]
    came: float
    tries: int = 0

    @property
    def asks(self) -> tuple[str, bool]:
        """What images that are looked at together have in common."""
        return self.language, self.pictures


class WorkerEnded(Exception):
    """The process is gone, or does not answer."""


class Worker:
    """A process with an inspector in it."""

    def __init__(self, process: asyncio.subprocess.Process, said: dict[str, Any]) -> None:
        self.process = process
        self.inspector: str = said["inspector"]
        self.facts: dict[str, Any] = said["facts"]

    @classmethod
    async def start(cls, source: Source, limits: Limits) -> "Worker":
        """Raises SteelshiftError where the inspector is refused, and WorkerEnded."""
        options = {
            "folder": str(source.folder), "runtime": source.runtime, "precision": source.precision,
            "threads": source.threads, "pixels": limits.pixels,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "steelshift.serving.worker", json.dumps(options),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": str(source.threads)},
        )  # fmt: skip  # -P: no module is taken from the folder that the server was started in
        try:
            said = await frames.receive(process.stdout)
        except asyncio.IncompleteReadError as error:
            raise WorkerEnded from error
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.kill()
            raise
        if "refused" in said:
            await process.wait()
            raise getattr(errors, said["refused"])(said["key"], **said["fields"])
        return cls(process, said)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def look(self, jobs: Sequence[Job], seconds: float) -> AsyncIterator[list[dict[str, Any]]]:
        """An answer an image, in their order, some at a time and each time within so long. Raises WorkerEnded."""
        message = {
            "language": jobs[0].language,
            "names": [job.name for job in jobs],
            "pictures": jobs[0].pictures,
        }
        left = len(jobs)
        try:
            self.process.stdin.write(frames.framed(message, [job.content for job in jobs]))
            while left:
                async with asyncio.timeout(seconds):
                    await self.process.stdin.drain()
                    answers = (await frames.receive(self.process.stdout))["answers"]
                left -= len(answers)
                yield answers
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise WorkerEnded from error

    async def close(self, seconds: float = 5.0) -> None:
        """Let it end by itself, or end it."""
        with suppress(OSError):
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Engine:
    """The queue, the worker that serves, and the one that may follow it."""

    def __init__(self, source: Source, limits: Limits, metrics: Metrics) -> None:
        self.source = source
        self.limits = limits
        self.metrics = metrics
        self.refused: SteelshiftError | None = None
        """Why the inspector could not be served in the first place."""
        self._waiting: deque[Job] = deque()
        self._worker: Worker | None = None
        self._next: Worker | None = None
        self._trouble = True  # nothing to wait for: no worker yet, or none can be started
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        return self._worker is not None and self._worker.alive and not self._trouble

    @property
    def inspector(self) -> str | None:
        """Fingerprint of the inspector that serves."""
        return self._worker.inspector if self._worker else None

    @property
    def facts(self) -> dict[str, Any]:
        """What it says of itself. Raises Refusal before there is one."""
        if self._worker is None:
            raise not_ready()
        return self._worker.facts

    def start(self, ended: Callable[[], None]) -> None:
        """Begin to work; `ended` is called where that is over without `stop`, for `refused` then."""

        def over(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                if task.exception() is not None:
                    log.error("engine failed", exc_info=task.exception())
                    self.refused = errors.RunFailed("worker_ended", path=self.source.folder)
                ended()

        self._begin(self._work()).add_done_callback(over)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in (self._worker, self._next):
            if worker is not None:
                await worker.close()

    def admit(self, count: int = 1) -> None:
        """Raises Refusal where so many images could not be taken now: asked before a body is read, and after."""
        if self._trouble:
            raise not_ready()
        if len(self._waiting) + count > self.limits.waiting:
            raise Refusal("http_full", 429, later(), seconds=SECONDS_TO_COME_AGAIN)

    async def inspect(
        self, images: Sequence[tuple[str, bytes]], language: str, pictures: bool = False
    ) -> list[tuple[str, dict[str, Any]]]:
        """For each image, a name and bytes, the inspector that looked at it and its answer. Raises Refusal."""
        self.admit(len(images))
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        jobs = [Job(name, content, pictures, language, loop.create_future(), now) for name, content in images]
        self._waiting.extend(jobs)
        self._wake.set()
        try:
            async with asyncio.timeout(self.limits.answer):
                return await asyncio.gather(*(job.done for job in jobs))
        except TimeoutError as error:
            raise Refusal("http_too_late", 504, seconds=self.limits.answer) from error
        finally:
            for job in jobs:  # what is still waiting is passed over
                job.done.cancel()

    def waiting(self) -> int:
        return len(self._waiting)

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _work(self) -> None:
        """Batches to the worker, one after the other, for as long as the server runs."""
        signature = await asyncio.to_thread(_signature, self.source.folder)
        try:
            self._install(await Worker.start(self.source, self.limits))
        except SteelshiftError as error:
            self.refused = error
            return
        except WorkerEnded:
            self.refused = errors.RunFailed("worker_ended", path=self.source.folder)
            return
        self._begin(self._watch(signature))
        while True:
            if self._next is not None:
                old, worker, self._next = self._worker, self._next, None
                self._install(worker)
                self._begin(old.close())
            elif not self._worker.alive:
                await self._restart()
            elif batch := self._take():
                await self._look(batch)
            else:
                self._wake.clear()
                await self._wake.wait()

    def _install(self, worker: Worker) -> None:
        self._worker, self._trouble = worker, False
        self.metrics.serving(worker.inspector)
        log.info("ready", extra={"facts": {"inspector": worker.inspector, "worker": worker.process.pid}})
        task = self._begin(_ended(worker))
        task.add_done_callback(lambda _: self._wake.set())

    async def _restart(self) -> None:
        log.warning("worker ended", extra={"facts": {"code": self._worker.process.returncode}})
        self.metrics.restarts.inc()
        pause = 0.25
        while self._next is None:
            try:
                self._install(await Worker.start(self.source, self.limits))
                return
            except (SteelshiftError, WorkerEnded) as error:
                why = str(error) or type(error).__name__
                log.error("no worker", extra={"facts": {"why": why, "again_in_s": pause}})
                self._trouble = True
                while self._waiting:
                    _settle(self._waiting.popleft(), not_ready())
            await asyncio.sleep(pause)
            pause = min(2 * pause, 4.0)

    def _take(self) -> list[Job]:
        """The next images that ask for the same; one that was in a worker when it died goes alone."""
        batch: list[Job] = []
        while self._waiting and len(batch) < self.limits.batch:
            job = self._waiting[0]
            if job.done.done():
                self._waiting.popleft()
                continue
            if batch and (job.tries or batch[0].tries or job.asks != batch[0].asks):
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _look(self, batch: list[Job]) -> None:
        began = time.monotonic()
        left = deque(batch)
        try:
            async for answers in self._worker.look(batch, self.limits.answer):
                for answer in answers:
                    self._answer(left.popleft(), answer)
        except WorkerEnded:
            await self._worker.kill()
            for job in reversed(left):
                job.tries += 1
                if job.tries == 2:
                    _settle(job, Refusal("http_ended_worker", 422))
                else:
                    self._waiting.appendleft(job)
            return
        self.metrics.batches.observe(len(batch))
        self.metrics.stages.labels("look").observe(time.monotonic() - began)
        for job in batch:
            self.metrics.stages.labels("wait").observe(began - job.came)

    def _answer(self, job: Job, answer: dict[str, Any]) -> None:
        self.metrics.row(answer["row"])
        if not job.done.done():
            job.done.set_result((self._worker.inspector, answer))

    async def _watch(self, known: Any) -> None:
        """Read the folder again once it has changed and then stayed the same for a moment."""
        before = known
        while True:
            await asyncio.sleep(LOOK)
            now = await asyncio.to_thread(_signature, self.source.folder)
            if now in (None, known) or now != before:
                before = now
                continue
            known = now
            with suppress(OSError):
                if await asyncio.to_thread(fingerprint, self.source.folder) == self.inspector:
                    continue
            try:
                worker = await Worker.start(self.source, self.limits)
            except (SteelshiftError, WorkerEnded) as error:
                self.metrics.swaps.labels("refused").inc()
                log.error("swap refused", extra={"facts": {"why": str(error) or type(error).__name__}})
                continue
            self.metrics.swaps.labels("done").inc()
            if self._next is not None:
                await self._next.close()
            self._next = worker
            self._wake.set()


def not_ready() -> Refusal:
    return Refusal("http_not_ready", 503, later(), seconds=SECONDS_TO_COME_AGAIN)


def later() -> dict[str, str]:
    return {"Retry-After": str(SECONDS_TO_COME_AGAIN)}


def _settle(job: Job, refusal: Refusal) -> None:
    if not job.done.done():
        job.done.set_exception(refusal)


async def _ended(worker: Worker) -> None:
    await worker.process.wait()


def _signature(folder: Path) -> list[tuple[str, int, int, int]] | None:
    """What tells that files of a folder have changed; None while it cannot be told."""
    try:
        found = ((path.as_posix(), path.stat()) for path in sorted(place_of(folder).rglob("*")) if path.is_file())
        return [(name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found] or None
    except OSError:
        return None
