"""`inspect`: rows, decisions, what it reads from and what it writes beside its table."""

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from builders import encoded, picture, write
from steelshift.cli import main
from steelshift.data import sources
from steelshift.data.decode import decode
from steelshift.data.sources import find_images
from steelshift.errors import DataError, UsageError
from steelshift.inspection import exported, inspector, reference, watching
from steelshift.inspection.inspector import Inspector
from steelshift.inspection.outputs import safe_name
from steelshift.inspection.rows import COLUMNS, ImageRow, append_rows, inspect_images, read_rows
from steelshift.inspection.specification import Specification
from steelshift.selection.reject import calibration_error, rate_needed, risk_coverage, thresholds

NAMES = ("划痕 scratch", "patches", "qualified")


def image(label: int, seed: int) -> np.ndarray:
    """Stripes across, along, or noise alone."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :48]
    waves = (np.sin(columns / 2 + seed), np.sin(rows / 2 + seed), np.zeros((48, 48)))[label]
    return np.clip(120 + 80 * waves + rng.normal(0, 12, (48, 48)), 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inspector of random features with a fitted classifier, and what it remembers of images."""
    torch.manual_seed(0)
    made = Inspector(Specification("alexnet", "conv_bottleneck", 64, NAMES, temperature=1.0))
    labels = np.repeat(np.arange(3), 30)
    pixels = np.stack([image(label, seed) for seed, label in enumerate(labels)])[..., None]
    wanted = torch.eye(3)[torch.from_numpy(labels)] * 12
    features = made.answer([pixels]).features
    with torch.no_grad():
        plus = torch.cat([torch.from_numpy(features), torch.ones(len(features), 1)], 1)
        weights = torch.linalg.lstsq(plus.T @ plus + 0.05 * torch.eye(plus.shape[1]), plus.T @ wanted).solution
        made.classifier.weight.copy_(weights[:-1].T)
        made.classifier.bias.copy_(weights[-1])
    p = made.score([pixels])
    names = [f"图 {number}.png" for number in range(60)]
    made.reference = reference.build(features[::2], labels[::2], names, features, p)
    limits = made.reference.thresholds(0.1)
    made.calibrate(threshold=limits.p, strange=limits.strange, review_rate=0.1)
    folder = tmp_path_factory.mktemp("runs") / "run 一" / "inspector"
    inspector.save(made, folder, "a card", [pixels[0], pixels[40], pixels[80]])
    return folder


@pytest.fixture(scope="module")
def out(saved: Path) -> Path:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason="the extra `export` is not installed")
    folder = saved.parent.parent / "exported"
    assert main(["export", str(saved), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images, two of a class, and one file that is none."""
    for number in range(6):
        write(tmp_path / "images" / f"图 {number}.png", encoded(image(number // 2, 100 + number)))
    write(tmp_path / "images" / "画.txt", b"no image")
    return tmp_path / "images"


def rows_of(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def inspected(where: Path, *images: Path | str, out: Path, more: tuple[str, ...] = ()) -> list[dict]:
    assert main(["inspect", str(where), *map(str, images), "--out", str(out), *more]) == 0
    return rows_of(out)


def test_a_row_says_all_there_is_to_say(saved: Path, folder: Path, tmp_path: Path) -> None:
    rows = inspected(saved, folder, out=tmp_path / "a.jsonl")
    assert len(rows) == 7 and tuple(rows[0]) == COLUMNS
    assert COLUMNS[:7] == ("id", "path", "class", "p", "decision", "reason", "error")
    for number, row in enumerate(rows[:6]):
        content = (folder / f"图 {number}.png").read_bytes()
        assert row["id"] == hashlib.sha256(content).hexdigest()
        assert row["class"] == NAMES[number // 2] and row["second_class"] in NAMES
        assert 0 < row["margin"] < row["p"] <= 1 and (row["width"], row["height"], row["bit_depth"]) == (48, 48, 8)
        assert row["inspector"] == hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
        nearest = row["nearest"].split("; ")
        assert len(nearest) == 3 and nearest[0].startswith(f"{row['class']}: 图 ")
        assert row["latency_ms"] > 0 and row["tile"] is None
    assert rows[6]["decision"] == "unreadable" and rows[6]["error"] and rows[6]["p"] is None and rows[6]["id"]


def test_decisions_follow_the_thresholds(saved: Path, folder: Path, tmp_path: Path) -> None:
    known = inspector.load(saved)
    for number in range(12):  # stripes aslant
        board = np.indices((48, 48)).sum(0) // (2 + number) % 2 * 255
        write(folder / f"{number}.png", encoded(board.astype(np.uint8)))
    rows = inspected(saved, folder, out=tmp_path / "a.jsonl")
    limits, seen = known.specification, set()
    for row in rows[:-1]:
        strange, sure = row["strange"] > limits.strange, row["p"] >= limits.threshold
        assert row["decision"] == ("reject-unknown" if strange else "accept" if sure else "reject-uncertain")
        assert ("unlike" in row["reason"]) is strange
        seen.add(row["decision"])
    assert {"accept", "reject-unknown"} <= seen
    none = inspected(saved, folder, out=tmp_path / "b.jsonl", more=("--review-rate", "0"))
    assert {row["decision"] for row in none} == {"accept", "unreadable"}
    most = inspected(saved, folder, out=tmp_path / "c.jsonl", more=("--review-rate", "0.9"))
    rejected = [sum(row["decision"].startswith("reject") for row in found) for found in (none, rows, most)]
    assert rejected == sorted(rejected) and rejected[2] > rejected[1]
    assert main(["inspect", str(saved), str(folder), "--out", str(tmp_path / "d.csv"), "--review-rate", "1.5"]) == 2


def test_thresholds_send_the_wanted_share_to_a_person() -> None:
    rng = np.random.default_rng(0)
    p, strange = rng.uniform(size=5000), rng.normal(size=5000)
    for rate in (0.01, 0.05, 0.3, 0.9):
        for other in (strange, -p):  # independent reasons, and reasons that meet in the same images
            limits = thresholds(p, other, rate)
            assert ((p < limits.p) | (other > limits.strange)).mean() == pytest.approx(rate, abs=0.003)
    limits = thresholds(p, strange, 0.0)
    assert not ((p < limits.p) | (strange > limits.strange)).any()
    limits = thresholds(p, strange, 0.1)
    needed = rate_needed(p, strange, (p, strange))
    rejected = (p < limits.p) | (strange > limits.strange)
    assert needed[rejected].max() <= needed[~rejected].min() + 1e-3


def test_risk_coverage_and_calibration_error_by_hand() -> None:
    curve = risk_coverage(np.array([0.1, 0.9, 0.5, 0.7]), np.array([True, False, True, False]))
    assert curve["coverage"] == [0.25, 0.5, 0.75, 1.0] and curve["risk"] == [0.0, 0.0, 0.33333, 0.5]
    assert curve["area"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    p, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, True, True, False])
    assert calibration_error(p, right) == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)
    rng = np.random.default_rng(1)
    p = rng.uniform(0.3, 1, 100_000)
    assert calibration_error(p, rng.uniform(size=len(p)) < p) < 0.01


def test_the_reference_knows_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(8)[:3]
    labels = np.repeat(np.arange(3), 40)
    features = np.abs(centres[labels] * 5 + rng.normal(0, 0.2, (120, 8)))
    names = [str(number) for number in range(120)]
    made = reference.build(features, labels, names, features, np.eye(3)[labels])
    strange, nearest = made.compare(np.abs(np.concatenate([centres * 5, np.eye(8)[6:] * 5])))
    assert strange[3:].min() > strange[:3].max() + 1
    assert (made.classes[nearest[:3]] == np.arange(3)[:, None]).all()
    assert made.strange.mean() > made.compare(features)[0].mean()  # scored without themselves
    wide = reference.chosen(labels, reference.MOST_VALUES // 6)
    assert len(wide) == 9 and (np.bincount(labels[wide]) == 3).all()


def test_strangeness_is_the_relative_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 50)
    features = rng.normal(size=(100, 5)) + 3 * np.eye(5)[labels]
    answers = np.eye(2)[np.r_[np.zeros(3, int), np.ones(37, int)]]  # three of a class are too few to count
    made = reference.build(features, labels, ["x"] * 100, features[:40], answers)
    known = reference.directions(np.concatenate([features, features[3:40]])).astype(float)
    of = np.concatenate([labels, np.ones(37, int)])
    means = np.stack([known[of == label].mean(0) for label in range(2)])

    def distance(given: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> float:
        covariance = spread.T @ spread / len(spread)
        covariance = covariance + reference.SHRINKAGE * np.trace(covariance) / 5 * np.eye(5)
        return float((given - mean) @ np.linalg.inv(covariance) @ (given - mean))

    for row in rng.normal(size=(4, 5)):
        given = reference.directions(row[None])[0].astype(float)
        near = min(distance(given, mean, known - means[of]) for mean in means)
        expected = (near - distance(given, known.mean(0), known - known.mean(0))) / 5
        assert made.compare(row[None])[0][0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_exported_rows_are_those_of_the_inspector(
    saved: Path, out: Path, folder: Path, tmp_path: Path, runtime: str
) -> None:
    more = ("--heatmaps", "all")
    before = inspected(saved, folder, out=tmp_path / "a.jsonl", more=more)
    after = inspected(out, folder, out=tmp_path / "b.jsonl", more=(*more, "--runtime", runtime))
    for one, other in zip(before, after, strict=True):
        for key in ("p", "margin", "strange"):
            if one[key] is not None:
                assert one[key] == pytest.approx(other[key], abs=1e-4, rel=1e-3)
        for key in ("id", "class", "decision", "second_class", "nearest", "inspector", "error"):
            assert one[key] == other[key]
        if one["heat_map"]:
            drawn = [np.asarray(Image.open(tmp_path / row["heat_map"])).astype(int) for row in (one, other)]
            assert drawn[0].shape == (48, 48, 3) and np.abs(drawn[0] - drawn[1]).max() <= 12  # JPEG
    assert sum(row["heat_map"] is not None for row in before) == 6


def test_many_files_of_one_content_have_one_picture(saved: Path, tmp_path: Path) -> None:
    """In several threads at once, whose pictures have the same name."""
    for number in range(90):
        write(tmp_path / "same" / f"{number}.png", encoded(image(0, 0)))
    rows = inspected(saved, tmp_path / "same", out=tmp_path / "a.jsonl", more=("--heatmaps", "all"))
    assert len(rows) == 90 and len({row["heat_map"] for row in rows}) == 1
    assert len(list((tmp_path / "a-heatmaps").iterdir())) == 1


def test_heat_from_maps_is_that_of_gradients(saved: Path) -> None:
    for feature, size in (("conv_bottleneck", 64), ("fc7_bottleneck", 112), ("conv_flat", 80)):
        torch.manual_seed(1)
        made = Inspector(Specification("alexnet", feature, size, NAMES))
        pixels = np.stack([image(label, label) for label in range(3)])[..., None]
        answer = made.answer([pixels], maps=True)
        heat = torch.from_numpy(made.heat(answer.maps))
        best = torch.from_numpy(answer.probabilities.argmax(1))
        expected = made.evidence(made.prepare(torch.from_numpy(pixels)), best)
        expected = expected / expected.amax((1, 2), keepdim=True).clamp(min=1e-12)
        assert torch.allclose(heat, expected, atol=1e-5) and expected.amax() > 0.9


def test_heat_of_other_networks() -> None:
    made = Inspector(Specification("test_efficientnet", "conv_bottleneck", 64, NAMES))
    answer = made.answer([image(0, 0)[None, ..., None]], maps=True)
    weights = made.classifier.weight[answer.probabilities.argmax()].detach().numpy()
    cam = np.clip(np.einsum("chw,c->hw", answer.maps[0], weights), 0, None)
    assert made.heat(answer.maps)[0] == pytest.approx(cam / cam.max(), abs=1e-5)
    other = Inspector(Specification("test_vit", "conv_bottleneck", 160, NAMES))  # no form that is known
    answer = other.answer([image(0, 0)[None, ..., None]], maps=True)
    assert other.drawing is None and other.heat(answer.maps).max() <= 1.0


def test_heat_maps_of_defects_alone(saved: Path, folder: Path, tmp_path: Path) -> None:
    rows = inspected(saved, folder, out=tmp_path / "a.jsonl", more=("--heatmaps", "defects"))
    assert [row["heat_map"] is not None for row in rows] == [True] * 4 + [False] * 3
    assert len(list((tmp_path / "a-heatmaps").iterdir())) == 4


def test_review_folder_holds_what_was_not_accepted(saved: Path, folder: Path, tmp_path: Path) -> None:
    more = ("--review-rate", "0.99", "--review-dir", str(tmp_path / "review"))
    rows = inspected(saved, folder, out=tmp_path / "a.jsonl", more=more)
    wanted = [row for row in rows if row["decision"] != "accept"]
    assert len(wanted) >= 4
    reasons = rows_of(tmp_path / "review" / "reasons.csv")
    assert [row["path"] for row in reasons] == [row["path"] for row in wanted]
    for row in reasons:
        if row["decision"] == "unreadable":
            assert not row["file"] and row["error"]
        else:
            assert (tmp_path / "review" / row["file"]).read_bytes() == Path(row["path"]).read_bytes()


def test_what_inspect_writes_is_not_inspected(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "in"
    write(place / "a.png", encoded(image(0, 0)))
    write(place / "broken.png", b"no image")
    more = ("--heatmaps", "all", "--review-dir", str(place / "review"), "--review-rate", "0.99")
    for _ in range(2):
        rows = inspected(saved, place, out=place / "rows.jsonl", more=more)
        assert [Path(row["path"]).name for row in rows] == ["a.png", "broken.png"]
    assert (place / "rows-heatmaps").is_dir() and (place / "review" / "reasons.csv").exists()
    monkeypatch.setattr(watching, "QUIET", 0.0)
    monkeypatch.setattr(watching, "PAUSE", 0.0)
    judge, turns = inspector.load(saved), iter(range(6))
    stopped = lambda: next(turns, None) is None  # noqa: E731
    but = [place / "rows.jsonl", place / "rows-heatmaps", place / "review"]
    followed = watching.follow(
        [place], place / "new.jsonl", lambda found: inspect_images(judge, found), stopped, but=but
    )
    assert [Path(row.path).name for row in followed] == ["a.png", "broken.png"]


@pytest.mark.parametrize(
    "name", ["../../x.png", "/etc/passwd", "a.zip!../..\\x", "CON", ".hidden.png", "", "\0.png", "图 1.png"]
)
def test_names_of_copies_stay_in_their_folder(name: str) -> None:
    found = safe_name(name, Path(name.replace("\0", "")).suffix)
    assert found and not found.startswith(".") and not set(found) & set("/\\:\0 *?\"<>|") and len(found) < 80


def test_fail_on(saved: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [folder / "图 4.png", folder / "图 5.png"]
    base = ["inspect", str(saved), "--out", str(tmp_path / "a.csv"), "--review-rate", "0", "--fail-on"]
    assert main([*base, "defect,reject", *map(str, good)]) == 0
    assert main([*base, "defect", str(folder)]) == 6
    assert "defect 4" in capsys.readouterr().err and len(rows_of(tmp_path / "a.csv")) == 7
    assert main([*base, "reject", str(folder)]) == 6  # what cannot be read is not accepted
    assert main([*base, "rust", str(folder)]) == 2
    assert main([*base, "defect, reject", str(folder)]) == 6


# Sources


def archived(folder: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"inner/{file.name}")
    else:
        packed = {".tar": "", ".tgz": "gz"}.get(path.suffix, path.suffix[1:])
        with tarfile.open(path, f"w:{packed}") as archive:
            archive.add(folder, "inner")
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_archives_hold_the_same_images(saved: Path, folder: Path, tmp_path: Path, name: str) -> None:
    made = archived(folder, tmp_path / name)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    judge = inspector.load(saved)
    plain = [each.row for each in inspect_images(judge, find_images([folder])[0])]
    found = [each.row for each in inspect_images(judge, find_images([made])[0])]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert sorted((row.id, row.class_, row.decision) for row in found) == sorted(
        (row.id, row.class_, row.decision) for row in plain
    )
    assert all(row.path.startswith(f"{made}!inner/") for row in found)


def taken(path: Path) -> list[tuple[str, str | None]]:
    """Path and error of every row."""
    return [(each.path, each.take(None).error) for each in find_images([path])[0]]


def test_hostile_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(picture(0))
    names = ["../up.png", "/abs.png", "..\\win.png", "C:\\x.png", "a/../../b.png", "dev/null", "nul", "图\u202e.png"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, content)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("inner.zip", (tmp_path / "a.zip").read_bytes())
    found = taken(tmp_path / "a.zip")
    assert [error is None for _, error in found] == [True] * len(names) + [False, False]
    assert "link" in found[-2][1]
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo("special")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    found = taken(tmp_path / "b.tar.gz")
    assert [error is None for _, error in found] == [True] * len(names) + [False] * 4
    monkeypatch.setattr(sources, "FREE_EXPANSION", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):
            archive.writestr(f"{number}.png", bytes(700_000))
    with tarfile.open(tmp_path / "bomb.tgz", "w:gz") as archive:
        for number in range(5):
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = 700_000
            archive.addfile(entry, io.BytesIO(bytes(700_000)))
    for name in ("bomb.zip", "bomb.tgz"):
        assert 1 <= len(taken(tmp_path / name)) <= 3 and "unpacks" in taken(tmp_path / name)[-1][1]
    monkeypatch.setattr(sources, "MOST_ENTRIES", 7)
    assert "more than 7" in taken(tmp_path / "a.zip")[-1][1] and len(taken(tmp_path / "a.zip")) == 1
    assert "more than 7" in taken(tmp_path / "b.tar.gz")[-1][1]
    for name, broken in {"c.zip": b"PK\3\4", "d.zip": b"", "e.tar": b"x" * 600, "f.tgz": b"\x1f\x8b\0\0"}.items():
        write(tmp_path / name, broken)
        assert len(taken(tmp_path / name)) == 1 and taken(tmp_path / name)[0][1]
    cut = (tmp_path / "b.tar.gz").read_bytes()[:-200]
    write(tmp_path / "cut.tgz", cut)
    assert taken(tmp_path / "cut.tgz")[-1][1]


def test_patterns_and_manifests(folder: Path, tmp_path: Path) -> None:
    found, count = find_images([Path(str(folder / "图 [0-3].png"))])
    assert count == 4 and [Path(each.path).name for each in found] == [f"图 {number}.png" for number in range(4)]
    write(tmp_path / "m.csv", "path,crop\nimages/图 0.png,0 0 20 10\nimages/图 1.png,\n".encode())
    (first, second), _ = ([each.take(None) for each in find_images([tmp_path / "m.csv"])[0]], None)
    assert first.decoded.pixels.shape == (10, 20, 1) and first.id.endswith("#0,0,20,10") and second.error is None
    with pytest.raises(DataError, match="matches"):
        find_images([tmp_path / "*.bmp"])


def test_videos_give_a_row_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    frames = [image(number % 3, number) for number in range(7)]
    with av.open(str(tmp_path / "v.mkv"), "w") as video:
        stream = video.add_stream("ffv1", rate=10)
        stream.width = stream.height = 48
        stream.pix_fmt = "gray"
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        video.mux(stream.encode(None))
    found = [(each.path, each.take(None)) for each in find_images([tmp_path / "v.mkv"], every=3)[0]]
    assert [path.rpartition("#")[2] for path, _ in found] == ["0", "3", "6"]
    digest = hashlib.sha256((tmp_path / "v.mkv").read_bytes()).hexdigest()
    for (_, frame), number in zip(found, (0, 3, 6), strict=True):
        assert frame.id == f"{digest}#{number}" and np.array_equal(frame.decoded.pixels[..., 0], frames[number])
    write(tmp_path / "list.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")  # names another file
    write(tmp_path / "cut.mkv", (tmp_path / "v.mkv").read_bytes()[:600])
    for name in ("list.mp4", "cut.mkv"):
        assert taken(tmp_path / name)[-1][1]
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="video"):
        sources.need_for([tmp_path / "v.mkv"])


# Watching


def test_watching_writes_each_image_once_over_restarts(
    saved: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "QUIET", 0.0)
    monkeypatch.setattr(watching, "PAUSE", 0.0)
    judge, table = inspector.load(saved), tmp_path / "a.csv"

    def go(looks: int) -> list[ImageRow]:
        turns = iter(range(looks))
        stopped = lambda: next(turns, None) is None  # noqa: E731
        return list(watching.follow([folder], table, lambda found: inspect_images(judge, found), stopped))

    assert len(go(6)) == 7 and len(rows_of(table)) == 7
    write(folder / "new.png", encoded(image(0, 500)))
    write(folder / "same again.png", (folder / "图 0.png").read_bytes())
    assert [Path(row.path).name for row in go(6)] == ["new.png"]
    content = table.read_bytes()
    table.write_bytes(content[:-40])  # a crash in the middle of a row: that image has none, and gets one
    assert [Path(row.path).name for row in go(6)] == ["new.png"]
    assert [row["id"] for row in rows_of(table)] == list(dict.fromkeys(row["id"] for row in rows_of(table)))
    table.write_bytes(table.read_bytes().replace(b"\r\n", b"\n"))  # another program has saved it
    assert go(6) == [] and len(rows_of(table)) == 8


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl"])
@pytest.mark.parametrize(
    "content", [b"a,b\r\n1,2\r\n", b"a,b\n1,2\n", b"a,b", b'{"a": 1}\n{"a": 2}', b'{"a": 1}', b"[1]\n", b"\n\n1"]
)
def test_a_table_of_others_is_refused_and_left(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path / name, content)
    with pytest.raises(UsageError, match="not a table"):
        read_rows(tmp_path / name)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl"])
def test_a_table_cut_short_anywhere_keeps_its_whole_rows(tmp_path: Path, name: str) -> None:
    append_rows([ImageRow("0", "a.png"), ImageRow("1", "图.png")], tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for size in range(len(content) + 1):
        (tmp_path / name).write_bytes(content[:size])
        rows = read_rows(tmp_path / name)
        kept = (tmp_path / name).read_bytes()
        assert content.startswith(kept) and len(rows) == max(0, kept.count(b"\n") - name.endswith(".csv"))


def test_half_written_files_wait(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock[0])
    content = encoded(image(0, 0))
    path = write(tmp_path / "in" / "a.png", content[:100])
    done, seen = {}, {}

    def ready() -> list[str]:
        return [each.name for each, _ in watching._ready([tmp_path / "in"], [tmp_path / "o.csv"], done, seen)]

    assert ready() == []
    clock[0] = 0.9
    write(path, content[:200])
    assert ready() == []
    clock[0] = 1.5
    assert ready() == []  # 0.6 s after the last change
    clock[0] = 2.0
    assert ready() == ["a.png"]
    write(path, content)
    assert ready() == []


def test_a_signal_ends_watching_cleanly(out: Path, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "a.jsonl"
    command = [sys.executable, "-m", "steelshift", "inspect", str(out), str(folder), "--out", str(table), "--watch"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
    for _ in range(600):
        if table.exists() and len(table.read_bytes().splitlines()) == 7:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    printed, said = process.communicate(timeout=30)
    assert process.returncode == 0 and b"7 rows" in printed and b"Traceback" not in said
    assert len(rows_of(table)) == 7
    assert main(["inspect", str(out), str(folder), "--out", str(tmp_path / "a.parquet"), "--watch"]) == 2
    assert main(["inspect", str(out), str(folder / "画.txt"), "--out", str(table), "--watch"]) == 2


def test_a_manifest_is_not_overwritten_by_its_own_answers(out: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.png", encoded(image(0, 0)))
    manifest = write(tmp_path / "line.csv", b"path,label\na.png,x\n")
    assert main(["inspect", str(out), str(manifest), "--out", str(tmp_path / "." / "line.csv")]) == 2
    assert manifest.read_bytes() == b"path,label\na.png,x\n"


# The same bytes, the same answer


def test_neighbours_and_order_change_nothing(saved: Path) -> None:
    judge = inspector.load(saved)
    pixels = [image(number % 3, number)[: 40 + number] for number in range(8)]
    together = judge.answer([each[None, ..., None] for each in pixels])
    for number, each in enumerate(pixels):
        alone = judge.answer([each[None, ..., None]])
        assert np.abs(alone.probabilities[0] - together.probabilities[number]).max() <= 1e-5
        strange = [judge.reference.compare(answer.features)[0] for answer in (alone, together)]
        assert abs(strange[0][0] - strange[1][number]) <= 1e-4


def test_damaged_references_are_refused(saved: Path, out: Path, tmp_path: Path) -> None:
    import shutil

    import safetensors.numpy

    from steelshift.errors import ArtifactRefused
    from steelshift.inspection.sums import write_sums

    good = safetensors.numpy.load_file(saved / reference.FILE)
    for number, change in enumerate(
        (
            {"examples": good["examples"][:, :7]},
            {"classes": good["classes"] + 9},
            {"strange": good["strange"] * np.nan},
            {"within": good["within"][:, :3]},
        )
    ):
        for where, load in ((saved, inspector.load), (out, exported.load)):
            changed = tmp_path / f"{number} {where.name}"
            shutil.copytree(where, changed)
            names = {"names": json.dumps([str(row) for row in range(len(good["classes"]))])}
            safetensors.numpy.save_file(good | change, changed / reference.FILE, metadata=names)
            write_sums(changed)
            with pytest.raises(ArtifactRefused):
                load(changed)


def test_appended_tables_read_back(tmp_path: Path) -> None:
    rows = [ImageRow(str(number), f'a, "b"\n\u2028\x0c{number}.png', reason="图") for number in range(3)]
    for name in ("a.csv", "a.jsonl"):
        append_rows(rows[:2], tmp_path / name)
        append_rows(rows[2:], tmp_path / name)
        assert [(row["id"], row["path"]) for row in read_rows(tmp_path / name)] == [(row.id, row.path) for row in rows]


def test_decode_is_called_once_an_image(saved: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(sources, "decode", lambda content, **options: calls.append(1) or decode(content, **options))
    judge = inspector.load(saved)
    calls.clear()
    assert len(list(inspect_images(judge, find_images([folder])[0], heat=True))) == 7 == len(calls)
