"""What every request passes before and after the application: limits, time, the token, an id, the log, headers.

Connections are uvicorn's, with two limits that it does not have: a connection has to send its headers within seconds
and in so many bytes, and there are so many connections at most.
"""

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from steelshift.messages import say, speak
from steelshift.serving import problems
from steelshift.serving.engine import Engine, later
from steelshift.serving.limits import MEBIBYTE, Limits
from steelshift.serving.metrics import Metrics
from steelshift.serving.problems import Refusal

log = logging.getLogger("steelshift.serving")
SAFE = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
OPEN = ("/", "/page.css", "/page.js", "/livez", "/readyz")
"""What needs no token: the page, to ask for it, and what watches over processes."""
LINGER = 1.0
"""Seconds, and mebibytes, of a refused body that are still taken, so that its sender reads the answer."""


class Door:
    """The application as uvicorn calls it."""

    def __init__(self, app: ASGIApp, engine: Engine, limits: Limits, metrics: Metrics, token: bytes | None) -> None:
        self.app = app
        self.engine = engine
        self.limits = limits
        self.metrics = metrics
        self.token = token
        self.held = 0
        """Bytes of bodies in memory, of all requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        headers = dict(scope["headers"])
        speak(_language(headers.get(b"accept-language", b"")))
        visit = Visit(self, scope, headers, receive, send)
        try:
            try:
                visit.check()
                await self.app(scope, visit.receive, visit.send)
            except Refusal as refusal:
                await problems.answer(refusal)(scope, visit.receive, visit.send)
            except ClientDisconnect:
                visit.facts["left"] = True
            except Exception as error:
                log.error("failed", exc_info=error, extra={"facts": {"id": visit.id}})
                if not visit.status:
                    await problems.response(500, say("http_failed"))(scope, visit.receive, visit.send)
        finally:
            self.held -= visit.held
            seconds = time.monotonic() - began
            # Only addresses that exist become labels: their number stays small whatever is asked for.
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, visit.status).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            visit.note(seconds)


class Visit:
    """One request and its answer, passing the door."""

    def __init__(self, door: Door, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        self.door = door
        self.scope = scope
        self.headers = headers
        self.id = uuid.uuid4().hex
        self.status = 0
        self.held = 0
        self.facts: dict[str, Any] = {}
        scope["state"]["facts"] = self.facts  # what the application adds to the line in the log
        self._receive, self._send = receive, send
        self._body_ended = b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"
        self._patience: float | None = None

    def check(self) -> None:
        """Raises Refusal without the token, where one is asked for."""
        token = self.door.token
        if token is not None and self.scope["path"] not in OPEN:
            scheme, _, given = self.headers.get(b"authorization", b"").partition(b" ")
            if not hmac.compare_digest(given.strip(), token) or scheme.lower() != b"bearer":
                raise Refusal("http_token", 401, {"WWW-Authenticate": 'Bearer realm="steelshift"'})

    async def receive(self) -> Message:
        """The next part of the body. Raises Refusal as soon as there is too much of it, or it takes too long."""
        loop, limits = asyncio.get_running_loop(), self.door.limits
        if self._body_ended:
            return await self._receive()
        if self._patience is None:
            self._patience = loop.time() + limits.arriving
            if int(self.headers.get(b"content-length", b"0")) > limits.body:  # digits: the parser saw to it
                raise self._too_large()
        try:
            async with asyncio.timeout_at(self._patience):
                message = await self._receive()
        except TimeoutError as error:
            raise Refusal("http_slow_body", 408, seconds=limits.arriving) from error
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.held += size
            self.door.held += size
            self._body_ended = not message.get("more_body", False)
            if self.held > limits.body:
                raise self._too_large()
            if self.door.held > limits.bodies * limits.body:
                raise Refusal("http_full", 429, later(), seconds=later()["Retry-After"])
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._more_headers()]
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not last or self._body_ended:
            await self._send(message)
            return
        await self._send(message | {"more_body": True})
        await self._linger()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def note(self, seconds: float) -> None:
        client = self.scope.get("client")
        facts = {
            "id": self.id, "method": self.scope["method"], "path": self.scope["path"], "status": self.status,
            "ms": round(1000 * seconds, 2), "bytes": self.held, "client": client[0] if client else None,
        }  # fmt: skip
        log.info("request", extra={"facts": facts | self.facts})

    def _more_headers(self) -> Iterable[tuple[bytes, bytes]]:
        yield from SAFE.items()
        yield b"request-id", self.id.encode()
        inspector = self.facts.get("inspector") or self.door.engine.inspector
        if inspector:
            yield b"steelshift-inspector", inspector.encode()
        if not self._body_ended:  # what is left of it is never read
            yield b"connection", b"close"

    async def _linger(self) -> None:
        """Take a little more of a body that nobody wants: closing at once would keep the answer from its sender."""
        taken = 0
        try:
            async with asyncio.timeout(LINGER):
                while taken < LINGER * MEBIBYTE:
                    message = await self._receive()
                    taken += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    def _too_large(self) -> Refusal:
        return Refusal("http_too_large", 413, limit=self.door.limits.body)


def _language(accepted: bytes) -> str | None:
    """The first language that a request names, where it is one that is spoken here."""
    first = accepted[:2].lower()
    return first.decode("ascii") if first in (b"zh", b"en") else None


def connections(limits: Limits) -> type[HttpToolsProtocol]:
    """Uvicorn's connections, with these limits."""

    class Connection(HttpToolsProtocol):
        _head_timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _drain_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._refuse(503, say("http_connections", limit=limits.connections))
                return
            self._head_timer = self.loop.call_later(limits.head, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_came()
            self._drained()
            super().connection_lost(exc)

        # Headers: so many bytes, within so many seconds.

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._head_timer is not None:  # still not all of them
                self._head_bytes += len(data)
                if self._head_bytes > limits.head_bytes:
                    self._refuse(431, self._head_sentence())

        def on_message_begin(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(limits.head, self._too_slow)
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._head_came()
            super().on_headers_complete()

        def _head_came(self) -> None:
            self._head_bytes = 0
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _too_slow(self) -> None:
            self._refuse(408, self._head_sentence())

        # Answers: whoever does not take one does not keep the connection.

        def pause_writing(self) -> None:
            super().pause_writing()
            self._expect_drained()

        def resume_writing(self) -> None:
            self._drained()
            super().resume_writing()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.get_write_buffer_size():
                self._expect_drained()

        def _expect_drained(self) -> None:
            if self._drain_timer is None:
                self._drain_timer = self.loop.call_later(limits.arriving, self._not_drained)

        def _drained(self) -> None:
            if self._drain_timer is not None:
                self._drain_timer.cancel()
                self._drain_timer = None

        def _not_drained(self) -> None:
            self._drain_timer = None
            if self.transport.get_write_buffer_size():
                self.transport.abort()

        # Refusals outside of the application.

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, self._head_sentence())

        def _head_sentence(self) -> str:
            return say("http_head", limit=limits.head_bytes, seconds=limits.head)

        def _refuse(self, status: int, sentence: str) -> None:
            """An answer, unless there is half of one already, and the end of the connection."""
            self._head_came()
            if self.transport.is_closing():
                return
            if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
                self.transport.close()
                return
            log.info("refused", extra={"facts": {"status": status, "client": self.client and self.client[0]}})
            response = problems.response(status, sentence, {"connection": "close"})
            head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
            head += [name + b": " + value for name, value in (*response.raw_headers, *SAFE.items())]
            self.transport.write(b"\r\n".join([*head, b"", response.body]))
            self.transport.close()

    return Connection
