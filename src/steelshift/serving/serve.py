"""Begin to serve, and end well: sockets, the log, signals."""

import json
import logging
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from steelshift.errors import RunFailed, UsageError
from steelshift.messages import say
from steelshift.progress import note
from steelshift.serving import app, door
from steelshift.serving.engine import Engine, Source
from steelshift.serving.limits import Limits
from steelshift.serving.metrics import Metrics
from steelshift.signals import stop_requests

SHORTEST_TOKEN = 8
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_PIXELS = {"": 1, "P": 1, "KP": 1000, "MP": 10**6}


def serve(source: Source, host: str, port: int, limits: Limits, token_file: Path | None = None) -> None:
    """Answer requests until asked to stop; those under way are answered first.

    Prints the address on stdout once connections are taken. Raises UsageError, ArtifactRefused or RunFailed.
    """
    token = None if token_file is None else _token(token_file)
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        note(say("serve_open", host=host))
    _log_lines()
    server, engine = prepared(source, limits, token)
    with _listening(host, port) as listener, stop_requests():
        address = f"[{host}]" if ":" in host else host
        print(f"http://{address}:{listener.getsockname()[1]}", flush=True)
        server.run([listener])
    if engine.refused is not None:
        raise engine.refused


def prepared(source: Source, limits: Limits, token: bytes | None) -> tuple[uvicorn.Server, Engine]:
    """A server that has only to be given its sockets, and the engine behind it."""
    metrics = Metrics()
    engine = Engine(source, limits, metrics)

    def ended() -> None:
        server.should_exit = True

    entry = door.Door(app.build(engine, limits, metrics, ended), engine, limits, metrics, token)
    configuration = uvicorn.Config(
        entry, http=door.connections(limits), ws="none", lifespan="on", log_config=None, access_log=False,
        timeout_keep_alive=limits.idle, timeout_graceful_shutdown=int(limits.answer), server_header=False,
        proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(configuration)
    metrics.watch(engine.waiting, lambda: len(server.server_state.connections))
    return server, engine


def amount(key: str, text: str, units: dict[str, int]) -> int:
    """`16MiB` or `40MP` as a number. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in units or not (value := int(float(match[1]) * units[match[2].upper()])):
        known = ", ".join(unit for unit in units if unit)
        raise UsageError("option_range", key=key, value=text, range=f"a number above 0 and one of {known}")
    return value


def size_of(text: str) -> int:
    """Bytes. Raises UsageError."""
    return amount("max-body", text, _UNITS)


def pixels_of(text: str) -> int:
    """Raises UsageError."""
    return amount("max-pixels", text, _PIXELS)


def _token(path: Path) -> bytes:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UsageError("token_unreadable", path=path, why=getattr(error, "strerror", None) or "not ASCII") from error
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise UsageError("token_unreadable", path=path, why=f"{len(token)} characters")
    return token.encode("ascii")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise RunFailed("cannot_listen", host=host, port=port, why=why) from error


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _log_lines() -> None:
    """The log on stderr, an object a line; of the libraries only what goes wrong here, not what clients do wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine())
    root = logging.getLogger()
    root.handlers, root.level = [handler], logging.ERROR
    logging.getLogger("steelshift.serving").setLevel(logging.INFO)
