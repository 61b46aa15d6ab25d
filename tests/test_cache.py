import os
import resource
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from builders import cached, encoded, picture, write, write_line
from steelshift.data import cache as room
from steelshift.data.cache import ABANDONED, cache_pixels
from steelshift.data.table import read_images
from steelshift.errors import DataError, RunFailed


@pytest.fixture
def line(tmp_path):
    return write_line(tmp_path / "line", {"a": 4, "b": 3})


def test_pixels_are_those_of_the_files(tmp_path):
    images = [picture(0), picture(1, 9, 50), np.stack([picture(2), picture(3), picture(4)], 2), picture(5)]
    cache = cached(tmp_path, images)
    assert len(cache) == 4
    for row in range(4):
        wanted = images[int(cache.table.rows[row].path.stem)]
        wanted = wanted if wanted.ndim == 3 else wanted[..., None]
        assert cache.shapes[row] == wanted.shape and np.array_equal(cache[row], wanted)
        with pytest.raises(ValueError, match="read-only"):
            cache[row][0, 0] = 0


def test_files_are_decoded_once(line, tmp_path, monkeypatch):
    table = read_images([line])
    told = []
    once = cache_pixels(table, tmp_path / "cache", progress=told.append)
    assert told == list(range(1, 8))
    monkeypatch.setattr(room, "decode", lambda *_, **__: pytest.fail("decoded again"))
    again = cache_pixels(table, tmp_path / "cache")
    assert again.digests == once.digests and again.table == once.table and again.depths == once.depths
    assert all(np.array_equal(again[row], once[row]) for row in range(7))


def test_another_depth_or_another_table_is_another_cache(line, tmp_path):
    write(line / "a" / "deep.png", encoded(picture(77).astype(np.uint16) * 16))
    table = read_images([line])
    guessed, given = (cache_pixels(table, tmp_path / "cache", bit_depth=depth) for depth in (None, 16))
    assert sorted(guessed.depths)[-1] == 12 and sorted(given.depths)[-1] == 16
    assert sum(one != other for one, other in zip(guessed.digests, given.digests, strict=True)) == 1
    assert len(cache_pixels(table.take([2, 5]), tmp_path / "cache")) == 2


def test_equal_pictures_have_equal_digests_whatever_their_files(tmp_path):
    pixels = picture(1)
    for name, content in {
        "a.png": encoded(pixels),
        "b.bmp": encoded(pixels, "BMP"),
        "c.tif": encoded(np.stack([pixels] * 3, 2), "TIFF"),
        "d.png": encoded(pixels.reshape(16, 48)),
        "e.png": encoded(255 - pixels),
    }.items():
        write(tmp_path / "images" / name, content)
    cache = cache_pixels(read_images([tmp_path / "images"]), tmp_path / "cache")
    digest = dict(zip((row.path.name[0] for row in cache.table.rows), cache.digests, strict=True))
    assert digest["a"] == digest["b"] == digest["c"]
    assert len(set(digest.values())) == 3


def test_crops_are_cut_from_one_decoding(tmp_path, monkeypatch):
    strip = picture(0, 40, 60)
    write(tmp_path / "strip.png", encoded(strip))
    crops = [(0, 0, 20, 10), (39, 29, 21, 11), (40, 0, 21, 5), (5, 6, 1, 1)]
    lines = ["path,crop", *("strip.png," + " ".join(map(str, crop)) for crop in crops)]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    calls = []
    monkeypatch.setattr(room, "decode", lambda *a, decode=room.decode, **k: calls.append(1) or decode(*a, **k))
    cache = cache_pixels(read_images([tmp_path / "m.csv"]), tmp_path / "cache")
    assert len(calls) == 1 and len(cache) == 3
    for row, record in enumerate(cache.table.rows):
        x, y, width, height = record.crop
        assert np.array_equal(cache[row][..., 0], strip[y : y + height, x : x + width])
    [(path, why)] = cache.table.unreadable
    assert path.name == "strip.png" and "40 0 21 5" in why and "60 x 40" in why


def test_what_cannot_be_decoded_is_named_each_time(line, tmp_path, monkeypatch):
    write(line / "a" / "broken.png", encoded(picture(30))[:99])
    write(line / "b" / "empty.png", b"")
    table = read_images([line])
    for _ in range(2):
        cache = cache_pixels(table, tmp_path / "cache")
        assert len(cache) == 7
        assert sorted(path.name for path, why in cache.table.unreadable if why) == ["broken.png", "empty.png"]
    monkeypatch.setenv("STEELSHIFT_LANG", "zh")
    assert "损坏" in dict(cache_pixels(table, tmp_path / "cache").table.unreadable)[line / "a" / "broken.png"]


def test_a_line_without_a_readable_image_is_refused(tmp_path):
    write(tmp_path / "line" / "a.png", b"no image")
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.png") as caught:
            cache_pixels(read_images([tmp_path / "line"]), tmp_path / "cache")
        assert caught.value.key == "all_unreadable"


def test_take_keeps_rows_and_pixels_together(tmp_path):
    cache = cached(tmp_path, [picture(seed, 10 + seed, 12) for seed in range(6)])
    index = np.array([4, 0, 5, 0])
    taken = cache.take(index)
    assert len(taken) == 4
    for row, old in enumerate(index):
        assert np.array_equal(taken[row], cache[old])
        assert taken.table.rows[row] == cache.table.rows[old] and taken.digests[row] == cache.digests[old]
        assert taken.shapes[row] == cache.shapes[old] and taken.depths[row] == cache.depths[old]


KILLED = """
import os, pathlib, sys
from steelshift.data.cache import cache_pixels
from steelshift.data.table import read_images
line, folder = map(pathlib.Path, sys.argv[1:])
cache_pixels(read_images([line]), folder, progress=lambda done: done == 4 and os._exit(9))
"""


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_half_a_cache_is_no_cache(line, tmp_path, how):
    folder = tmp_path / "cache"
    if how == "killed":
        assert subprocess.run([sys.executable, "-c", KILLED, line, folder], timeout=60).returncode == 9
        [half] = folder.glob("*.tmp")
        long_ago = time.time() - 2 * ABANDONED
        os.utime(half, (long_ago, long_ago))
    else:

        def stop(done):
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cache_pixels(read_images([line]), folder, progress=stop)
        assert list(folder.iterdir()) == []
    assert not list(folder.glob("*.json")) and not list(folder.glob("*.bin"))
    assert len(cache_pixels(read_images([line]), folder)) == 7
    assert sorted(path.suffix for path in folder.iterdir()) == [".bin", ".json"]


def test_a_file_that_another_process_writes_now_is_left_alone(line, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    write(folder / "pixels-0.1.tmp", b"half")
    cache_pixels(read_images([line]), folder)
    assert (folder / "pixels-0.1.tmp").exists()


def test_pixels_without_an_index_are_written_anew(line, tmp_path):
    folder = tmp_path / "cache"
    whole = cache_pixels(read_images([line]), folder)
    next(folder.glob("*.json")).unlink()
    [pixels] = folder.glob("*.bin")
    pixels.unlink()  # still mapped: not to be written over in place
    pixels.write_bytes(b"half")
    again = cache_pixels(read_images([line]), folder)
    assert again.digests == whole.digests and all(np.array_equal(again[row], whole[row]) for row in range(7))


def test_a_full_disk_is_a_named_failure_and_leaves_nothing(line, tmp_path):
    table = read_images([line])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(RunFailed) as caught:
            cache_pixels(table, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.key == "cannot_write" and str(tmp_path / "cache") in str(caught.value)
    assert os.listdir(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_made_is_a_named_failure(line, tmp_path):
    write(tmp_path / "file", b"")
    with pytest.raises(RunFailed, match="file"):
        cache_pixels(read_images([line]), tmp_path / "file" / "cache")


def test_the_users_files_stay_as_they_are(line, tmp_path):
    before = {path: path.read_bytes() for path in line.rglob("*.png")}
    table = read_images([line])
    cache_pixels(replace(table, rows=table.rows[:3]), tmp_path / "cache")
    assert {path: path.read_bytes() for path in line.rglob("*") if path.is_file()} == before
