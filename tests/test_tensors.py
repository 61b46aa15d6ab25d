"""Weights written one tensor after the other are the bytes that the library would write, and no copy of all of them."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from steelshift.errors import RunFailed
from steelshift.tensors import _TYPES, write_tensors


def some() -> dict[str, torch.Tensor]:
    """One of every type, and shapes and layouts that a network has."""
    torch.manual_seed(0)
    found = {f"{type_}": (torch.randn(3, 5) * 10).to(type_) for type_ in _TYPES}
    found["划痕 权重"] = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    found["a scalar"] = torch.tensor(7.5)
    found["nothing"] = torch.zeros(0, 4)
    found["turned"] = torch.randn(4, 6).t()
    found["learned"] = torch.nn.Parameter(torch.randn(2))
    return found


def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    tensors = some()
    digest = write_tensors(tmp_path / "weights.safetensors", tensors)
    written = (tmp_path / "weights.safetensors").read_bytes()
    assert written == safetensors.torch.save({name: value.detach().contiguous() for name, value in tensors.items()})
    assert digest == hashlib.sha256(written).hexdigest()
    read = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in tensors.items())


def test_an_empty_network_is_written_too(tmp_path: Path) -> None:
    write_tensors(tmp_path / "weights.safetensors", {})
    assert safetensors.torch.load_file(tmp_path / "weights.safetensors") == {}


def test_a_type_without_a_name_is_not_written_as_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_tensors(tmp_path / "weights.safetensors", {"complex": torch.zeros(2, dtype=torch.complex64)})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steelshift import files

    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.ones(3)})
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunFailed, match="No space left"):
        write_tensors(path, {"a": torch.zeros(3)})
    assert [each.name for each in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before


def test_nothing_is_held_twice(tmp_path: Path) -> None:
    """Memory of Python's own, where `safetensors.torch.save` holds its result."""
    tensors = {str(number): torch.from_numpy(np.ones(2**18, np.float32)) for number in range(8)}
    tracemalloc.start()
    try:
        write_tensors(tmp_path / "weights.safetensors", tensors)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        safetensors.torch.save(tensors)
        copied = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 < 8 * 2**20 <= copied
