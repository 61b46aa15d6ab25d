"""Tensors written as safetensors, one after the other: nothing of them is held twice.

`safetensors.torch.save` makes two copies of all of them, and `save_file` renames a file of its own that was not synced
and that nobody else may read.

The format: 8 bytes, the length of the header, its lowest byte first; the header, JSON, with spaces up to a multiple of
8; the values without a gap (https://huggingface.co/docs/safetensors).
"""

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from steelshift.files import write_atomically

_TYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""In the order in which they are written: every value lies at a multiple of its own size."""


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write atomically what `safetensors.torch.save` would have made; returns its sha256, in hex. Raises RunFailed."""
    order = list(_TYPES)
    named = sorted(tensors.items(), key=lambda each: (order.index(each[1].dtype), each[0]))
    header, end = {}, 0
    for name, value in named:
        begin, end = end, end + value.nbytes
        header[name] = {"dtype": _TYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    told = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    told += b" " * (-len(told) % 8)
    digest = hashlib.sha256()

    def fill(file: BinaryIO) -> None:
        for part in (len(told).to_bytes(8, "little"), told, *(value for _, value in named)):
            content = _bytes(part) if isinstance(part, Tensor) else part
            digest.update(content)
            file.write(content)

    write_atomically(path, fill)
    return digest.hexdigest()


def _bytes(value: Tensor) -> memoryview:
    return memoryview(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
