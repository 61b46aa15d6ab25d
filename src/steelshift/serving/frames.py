"""What server and worker say to each other: JSON with bytes behind it, through pipes. Nothing is unpickled."""

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

_HEAD = struct.Struct(">I")


def framed(message: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """The message, which also says how long each blob is, and the blobs."""
    text = json.dumps(message | {"sizes": [len(blob) for blob in blobs]}, ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace")  # a lone surrogate stays what it is
    return b"".join((_HEAD.pack(len(text)), text, *blobs))


def read(file: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next message and its blobs; None at the end."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    message = json.loads(file.read(*_HEAD.unpack(head)))
    return message, [file.read(size) for size in message["sizes"]]


async def receive(stream: asyncio.StreamReader) -> dict[str, Any]:
    """The next message, without blobs. Raises asyncio.IncompleteReadError at the end."""
    (size,) = _HEAD.unpack(await stream.readexactly(_HEAD.size))
    return json.loads(await stream.readexactly(size))
