"""Exported inspectors: the same bytes give the same answers in every runtime, without torch, or nothing is written."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from builders import damage, encoded, picture, write
from steelshift import exporting
from steelshift.cli import main
from steelshift.data.decode import decode
from steelshift.data.table import list_places
from steelshift.errors import ArtifactRefused, RunFailed, UsageError
from steelshift.files import write_json
from steelshift.inspection import exported, inspector, quantize
from steelshift.inspection.graph import to_onnx
from steelshift.inspection.inspector import Inspector
from steelshift.inspection.parity import Parity, compare, worst
from steelshift.inspection.runtimes import PIXELS, PROBABILITIES
from steelshift.inspection.specification import Head, Specification, score_each
from steelshift.inspection.sums import write_sums
from steelshift.nn.sharing import SCHEDULE

for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
    pytest.importorskip(package, reason="the extra `export` is not installed")

KINDS = [("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")]
ALL = ["--precision", "fp32,bf16,int8"]
EVERY = [(runtime, precision) for runtime, precision in KINDS if precision != "bf16"]


def taught(lines: Path, encoder: str = "alexnet", size: int = 64) -> Inspector:
    """Random features and a classifier fitted on them: confident answers without training."""
    torch.manual_seed(0)
    places = list_places([lines / "target"])
    names = tuple(sorted({place.label for place in places}))
    made = Inspector(Specification(encoder, "conv_bottleneck", size, names, temperature=0.9, threshold=0.6))
    images = [decode(place.path.read_bytes()).pixels for place in places]
    wanted = torch.eye(len(names))[[names.index(place.label) for place in places]] * 12
    with torch.no_grad():
        features = made.encoder(made.prepare(torch.from_numpy(np.stack(images))))
        features = torch.cat([features, torch.ones(len(features), 1)], 1)
        weights = torch.linalg.lstsq(features.T @ features + 0.5 * torch.eye(features.shape[1]), features.T @ wanted)
        made.classifier.weight.copy_(weights.solution[:-1].T)
        made.classifier.bias.copy_(weights.solution[-1])
    return made


@pytest.fixture(scope="module")
def saved(lines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, as far as export reads one: an inspector, its options, and which target images it was trained on."""
    run = tmp_path_factory.mktemp("runs") / "run 一"
    golden = [decode(path.read_bytes()).pixels for path in sorted((lines / "source").rglob("*.png"))[::12]]
    inspector.save(taught(lines), run / "inspector", "a card", golden)
    write_json(run / "config.yaml", {"target": [str(lines / "target")], "classes": None, "cache": None})
    ids = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in (lines / "target").rglob("*.png"))
    write_json(run / "data.lock.json", {"target": {"train": ids[:60], "test": ids[60:]}})
    return run


@pytest.fixture(scope="module")
def out(saved: Path, lines: Path) -> Path:
    """Exported once in every runtime and precision, verified on the target line."""
    folder = saved.parent / "exported"
    assert main(["export", str(saved), "--out", str(folder), *ALL, "--verify", str(lines / "target")]) == 0
    return folder


def images(seed: int = 0) -> list[np.ndarray]:
    """Sizes, shapes and channels in no order; some sizes twice."""
    rng = np.random.default_rng(seed)
    sides = [(200, 200), (64, 64), (2, 3), (1, 70), (333, 41), (64, 64), (97, 512), (1200, 900)]
    grey = [picture(seed + number, *sides[number])[..., None] for number in range(len(sides))]
    colour = [rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in ((64, 64), (31, 200), (64, 64))]
    return [*grey[:4], *colour, *grey[4:]]


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_any_size_and_channels_score_as_in_eager_mode(saved: Path, out: Path, runtime: str) -> None:
    judge = exported.load(out, runtime, "fp32")
    expected, found = (score_each(each, images()) for each in (inspector.load(saved), judge))
    assert found.dtype == np.float32 and np.abs(found - expected).max() <= 1e-4
    assert expected.max(1).std() > 0.05  # answers that could differ


@pytest.mark.parametrize(("runtime", "precision"), EVERY)
def test_neighbours_and_order_change_nothing(out: Path, runtime: str, precision: str) -> None:
    judge = exported.load(out, runtime, precision)
    together = score_each(judge, images())
    alone = np.concatenate([score_each(judge, [image]) for image in images()])
    assert np.abs(together - alone).max() <= 1e-5
    assert np.abs(together - score_each(judge, images()[::-1])[::-1]).max() <= 1e-5


@pytest.mark.parametrize(("runtime", "precision"), KINDS)
def test_every_graph_passes_the_gate_by_its_own_record(out: Path, runtime: str, precision: str) -> None:
    record = json.loads((out / "export.json").read_text(encoding="utf-8"))
    entries = {(entry["runtime"], entry["precision"]): entry for entry in record["graphs"]}
    if (runtime, precision) not in entries:
        pytest.skip("this processor has no bf16")
    parity = entries[runtime, precision]["parity"]
    assert parity["images"] == 84 and parity["accuracy_lost"] is not None
    assert parity["same_class"] >= {"fp32": 1.0, "bf16": 0.995, "int8": 0.99}[precision]
    if precision == "fp32":
        assert 0 < parity["largest_difference"] <= 1e-4
    else:  # it is what it says, and no other precision in its name
        assert parity["largest_difference"] > 1e-4


def mixed(folder: Path) -> Path:
    """Files of several depths, kinds and sizes, and two that cannot be read."""
    deep = picture(3, 90, 70).astype(np.uint16) * 257
    write(folder / "16 bit.png", encoded(deep))
    write(folder / "16 bit.tiff", encoded(deep, "TIFF"))
    write(folder / "12 bit.png", encoded(picture(4, 60, 60).astype(np.uint16) * 16))
    write(folder / "图.jpg", encoded(np.stack([picture(seed, 120, 80) for seed in (1, 2, 3)], -1), "JPEG"))
    write(folder / "colour.png", encoded(np.stack([picture(seed, 64, 64) for seed in (7, 8, 9)], -1)))
    for seed in range(5):
        write(folder / f"{seed}.bmp", encoded(picture(20 + seed, 64, 64 + seed % 2), "BMP"))
    write(folder / "text.png", b"no image")
    write(folder / "empty.jpg", b"")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_rows_are_those_of_torch(saved: Path, out: Path, tmp_path: Path, runtime: str) -> None:
    folder = mixed(tmp_path / "images")
    assert main(["inspect", str(saved), str(folder), "--out", str(tmp_path / "a.csv")]) == 0
    options = ["--out", str(tmp_path / "b.csv"), "--runtime", runtime]
    assert main(["inspect", str(out), str(folder), *options]) == 0
    expected, found = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    assert len(found) == 12 and {row["bit_depth"] for row in found} == {"", "8", "12", "16"}
    for before, after in zip(expected, found, strict=True):
        assert list(before) == list(after)
        for key in ("p", "margin", "strange"):
            a, b = before.pop(key), after.pop(key)
            assert (a == b == "") or abs(float(a) - float(b)) <= 1e-4
        for row in (before, after):
            del row["reason"], row["latency_ms"]  # the one repeats p, the other is a clock's
        assert before == after


def test_graphs_say_what_they_are(saved: Path, out: Path) -> None:
    import onnx

    from steelshift.inspection.runtimes import import_openvino

    facts = {entry.key: entry.value for entry in onnx.load(out / "model-fp32.onnx").metadata_props}
    specification = inspector.load(saved).specification
    assert json.loads(facts["steelshift.classes"]) == list(specification.classes)
    assert float(facts["steelshift.temperature"]) == 0.9 and float(facts["steelshift.threshold"]) == 0.6
    assert facts["steelshift.layout"] == "NHWC" and "steelshift.bit_depth" in facts
    weights = hashlib.sha256((saved / "inspector" / "model.safetensors").read_bytes()).hexdigest()
    assert facts["steelshift.weights_sha256"] == weights
    for precision, hint in (("fp32", "f32"), ("bf16", "bf16"), ("int8", "f32")):
        if (out / f"openvino-{precision}.xml").exists():
            graph = import_openvino().Core().read_model(out / f"openvino-{precision}.xml")
            assert graph.get_rt_info("steelshift").value == {
                **{key.removeprefix("steelshift."): value for key, value in facts.items()},
                "inference_precision_hint": hint,
            }
    assert json.loads((out / "export.json").read_text(encoding="utf-8"))["weights_sha256"] == weights


def test_only_the_network_is_in_8_bit(out: Path) -> None:
    import onnx

    def nodes_of_preparing(model):  # type: ignore[no-untyped-def]
        makers = {name: node for node in model.graph.node for name in node.output}
        found, waiting = set(), ["prepared"]
        while waiting:
            if node := makers.get(waiting.pop()):
                found.add(node.name)
                waiting.extend(node.input)
        return found

    plain, small = (onnx.load(out / f"model-{precision}.onnx") for precision in ("fp32", "int8"))
    kinds = {node.name: node.op_type for node in small.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds.values())
    assert not {"QuantizeLinear", "DequantizeLinear"} & {kinds[name] for name in nodes_of_preparing(small)}
    assert nodes_of_preparing(plain) == nodes_of_preparing(small) and len(nodes_of_preparing(plain)) > 50
    assert (out / "model-int8.onnx").stat().st_size < 0.4 * (out / "model-fp32.onnx").stat().st_size


@pytest.mark.parametrize(("encoder", "size"), [("test_efficientnet", 64), ("test_vit", 160)])
def test_other_encoders(lines: Path, tmp_path: Path, encoder: str, size: int) -> None:
    made = taught(lines, encoder, size)
    golden = [picture(seed, 80, 60)[..., None] for seed in range(3)]
    inspector.save(made, tmp_path / "inspector", "a card", golden)
    assert main(["export", str(tmp_path / "inspector"), "--out", str(tmp_path / "out")]) == 0
    for runtime in ("onnx", "openvino"):
        judge = exported.load(tmp_path / "out", runtime)
        assert np.abs(score_each(judge, images(5)) - score_each(made, images(5))).max() <= 1e-4


def without(*modules: str) -> str:
    """Python that cannot import these."""
    return textwrap.dedent(
        f"""
        import sys
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {modules!r}:
                    raise ImportError(name)
        sys.meta_path.insert(0, Refuse())
        """
    )


@pytest.mark.parametrize(("runtime", "other"), [("onnx", "openvino"), ("openvino", "onnxruntime")])
def test_inspecting_needs_one_runtime_and_no_torch(out: Path, tmp_path: Path, runtime: str, other: str) -> None:
    folder = mixed(tmp_path / "images")
    arguments = ["inspect", str(out), str(folder), "--out", str(tmp_path / "a.csv"), "--runtime", runtime]
    code = without("torch", "torchvision", "timm", "nncf", "onnx", "onnxscript", "sklearn", "scipy", other)
    code += f"from steelshift.cli import main\nsys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "a.csv")) == 12


def test_threads_that_begin_together_do_not_wait_for_each_other() -> None:
    """A new process each time: only the first inferences of a process can lock, and in half of them did."""
    code = """
        import sys
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from steelshift.inspection import runtimes
        openvino = runtimes.import_openvino()
        pixels = openvino.opset13.parameter([-1, 4], np.uint8)
        model = openvino.Model([openvino.opset13.convert(pixels, "f32")], [pixels])
        graph = openvino.Core().compile_model(model, "CPU")
        sys.setswitchinterval(1e-5)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: graph.create_infer_request().infer([np.zeros((64, 4), np.uint8)]), range(8)))
    """
    for _ in range(8):
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=30, check=True)


@pytest.mark.parametrize(("runtime", "tile"), [("onnx", 50), ("openvino", 64)])
def test_strips_need_no_torch_and_are_as_in_torch(
    saved: Path, out: Path, tmp_path: Path, runtime: str, tile: int
) -> None:
    """Tiles that are resized in the graph, and those of the network's own size, whose light OpenVINO is given."""
    strip = write(tmp_path / "strip.bmp", encoded(picture(4, 130, 200), "BMP"))
    options = ["--strip", "--tile", str(tile), "--overlap", "0.25"]
    assert main(["inspect", str(saved), str(strip), "--out", str(tmp_path / "a.csv"), *options]) == 0
    arguments = ["inspect", str(out), str(strip), "--out", str(tmp_path / "b.csv"), "--runtime", runtime, *options]
    code = without("torch", "torchvision", "timm", "nncf", "onnx", "onnxscript", "sklearn")
    code += f"from steelshift.cli import main\nsys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected, found = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    assert len(found) == len(expected) > 10
    assert all(abs(float(a["p"]) - float(b["p"])) <= 1e-4 for a, b in zip(expected, found, strict=True))
    assert [row["tile"] for row in found] == [row["tile"] for row in expected]


GUARD = """
import os, sys
def guard(event, arguments, record=os.open({record!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg", "urllib.Request"):
        os.write(record, (event + repr(arguments) + chr(10)).encode())
        raise OSError("nothing may connect")
sys.addaudithook(guard)
from steelshift.cli import main
"""


def test_nothing_connects_anywhere(saved: Path, lines: Path, tmp_path: Path) -> None:
    """Not in these processes, nor in those they fork; and no usage report is left to be sent."""
    record, home = tmp_path / "connections", tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "NNCF_CI", "NNCF_DEV")}
    made = ["export", str(saved), "--out", str(tmp_path / "out"), *ALL, "--verify", str(lines / "target")]
    images_, table = str(lines / "target" / "patches"), str(tmp_path / "a.csv")
    commands = [made, *(["inspect", str(tmp_path / "out"), images_, "--out", table, "--runtime", runtime]
                        for runtime in ("onnx", "openvino"))]  # fmt: skip
    for command in commands:
        code = GUARD.format(record=str(record)) + f"sys.exit(main({command!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | {"HOME": str(home)}, capture_output=True, timeout=300
        )
        assert done.returncode == 0, done.stderr.decode()
        if command is made:
            assert b"onnx int8" in done.stdout and b"Statistics" not in done.stdout
    assert record.read_text() == ""
    assert not (home / "intel").exists()


def spoil(model):  # type: ignore[no-untyped-def]
    """The weights of the classifier, a little off."""
    import onnx

    for weights in model.graph.initializer:
        if "classifier.weight" in weights.name:
            values = onnx.numpy_helper.to_array(weights) * 1.3
            weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weights.name))
            return model
    raise AssertionError("no classifier")


def test_a_graph_that_answers_otherwise_is_not_written(
    saved: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = exporting._graph_of
    monkeypatch.setattr(exporting, "_graph_of", lambda made: (spoil(right(made)[0]), None))
    arguments = ["export", str(saved), "--out", str(tmp_path / "out"), "--verify", str(lines / "target")]
    assert main(arguments) == 5
    said = capsys.readouterr()
    assert "onnx fp32" in said.err and "openvino fp32" in said.err and "84" in said.err and not said.out
    assert list(tmp_path.iterdir()) == []


def darker(model):  # type: ignore[no-untyped-def]
    """What the network reads is halved, before the place at which `inspect` hands its own to OpenVINO."""
    import onnx

    maker = next(node for node in model.graph.node if "prepared" in node.output)
    place = list(model.graph.node).index(maker)
    maker.output[list(maker.output).index("prepared")] = "bright"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    model.graph.node.insert(place + 1, onnx.helper.make_node("Mul", ["bright", "half"], ["prepared"]))
    return model


def test_a_file_is_judged_with_the_preparation_that_is_in_it(
    saved: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`inspect` prepares images for OpenVINO itself; whoever runs the file elsewhere does not."""
    right = exporting._graph_of
    monkeypatch.setattr(exporting, "_graph_of", lambda made: (darker(right(made)[0]), None))
    options = ["--format", "openvino", "--precision", "fp32", "--verify", str(lines / "target")]
    assert main(["export", str(saved), "--out", str(tmp_path / "out"), *options]) == 5
    assert "openvino fp32" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_passes_is_written_beside_what_fails(
    saved: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporting, "_int8", lambda model, samples: turned(model))
    out = tmp_path / "out"
    options = ["--format", "onnx", "--precision", "fp32,int8", "--verify", str(lines / "target")]
    assert main(["export", str(saved), "--out", str(out), *options]) == 5
    assert "onnx int8" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == [
        "MODEL_CARD.md", "SHA256SUMS", "export.json", "golden", "heat.onnx", "model-fp32.onnx",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [out]
    exported.load(out)
    with pytest.raises(UsageError, match="int8"):
        exported.load(out, "onnx", "int8")


def turned(model):  # type: ignore[no-untyped-def]
    """Another class for every image."""
    import onnx

    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    for weights in wrong.graph.initializer:
        if "classifier" in weights.name:
            values = np.roll(onnx.numpy_helper.to_array(weights), 1, axis=0)
            weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    return wrong


def test_a_full_disk_leaves_nothing(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise RunFailed("cannot_write", path=folder, why="No space left on device")

    monkeypatch.setattr(exporting, "write_sums", full)
    assert main(["export", str(saved), "--out", str(tmp_path / "out"), "--format", "onnx"]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_changed_folder_is_refused(out: Path, lines: Path, tmp_path: Path, seed: int) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(out, changed)
    files = sorted(path for path in changed.rglob("*") if path.is_file())
    rng = np.random.default_rng(seed)
    path = files[rng.integers(len(files)) if path_is_named(files, seed) is None else path_is_named(files, seed)]
    damage(path, seed % 3, rng, tmp_path / "ran")
    assert main(["inspect", str(changed), str(lines / "target"), "--out", str(tmp_path / "a.csv")]) == 4
    assert not (tmp_path / "a.csv").exists() and not (tmp_path / "ran").exists()


def path_is_named(files: list[Path], seed: int) -> int | None:
    """The graph itself for the first three seeds, its record for the next three, then any file."""
    name = ("model-fp32.onnx", "export.json")[seed // 3] if seed < 6 else None
    return next((number for number, path in enumerate(files) if path.name == name), None)


@pytest.mark.parametrize("content", ["garbage", "another graph", "another schema", "no golden"])
def test_a_foreign_folder_with_right_sums_is_refused(out: Path, tmp_path: Path, content: str) -> None:
    import onnx

    changed = tmp_path / "changed"
    shutil.copytree(out, changed)
    graph, record = changed / "model-fp32.onnx", json.loads((changed / "export.json").read_text(encoding="utf-8"))
    if content == "garbage":
        graph.write_bytes(b"no graph")
    elif content == "another graph":
        graph.write_bytes(spoil(onnx.load(graph)).SerializeToString())
    elif content == "another schema":
        write_json(changed / "export.json", record | {"schema": 99})
    else:
        shutil.rmtree(changed / "golden")
    write_sums(changed)
    with pytest.raises(ArtifactRefused):
        exported.load(changed, "onnx", "fp32")


def test_wrong_wishes_are_refused(
    saved: Path, out: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, table = ["--out", str(tmp_path / "new")], ["--out", str(tmp_path / "a.csv")]
    assert main(["export", str(saved), *new, "--format", "tensorrt"]) == 2
    assert main(["export", str(saved), *new, "--precision", "fp8"]) == 2
    assert main(["export", str(saved), *new, "--format", "onnx", "--precision", "bf16"]) == 2
    assert main(["export", str(saved), "--out", str(out)]) == 2
    assert main(["export", str(saved / "inspector"), *new, "--precision", "int8"]) == 2
    assert main(["export", str(lines), *new]) == 4
    assert main(["export", str(saved), *new, "--verify", str(tmp_path / "nowhere")]) == 3
    assert main(["inspect", str(saved), str(lines / "target"), *table, "--runtime", "onnx"]) == 2
    monkeypatch.setattr("steelshift.inspection.runtimes.find_spec", lambda name: None)
    assert main(["export", str(saved), *new]) == 2
    assert main(["inspect", str(out), str(lines / "target"), *table]) == 2
    assert list(tmp_path.iterdir()) == []


def test_int8_is_calibrated_on_training_images_or_on_a_folder(saved: Path, lines: Path, tmp_path: Path) -> None:
    made = inspector.load(saved)
    wanted = set(json.loads((saved / "data.lock.json").read_text(encoding="utf-8"))["target"]["train"])
    paths = [p for p in (lines / "target").rglob("*.png") if hashlib.sha256(p.read_bytes()).hexdigest() in wanted]
    pixels = sorted(decode(path.read_bytes()).pixels.tobytes() for path in paths)
    assert sorted(image.tobytes() for image in exporting._samples(saved, made, None)) == pixels
    Image.fromarray(picture(1)).save(tmp_path / "one.png")
    (one,) = exporting._samples(saved, made, tmp_path)
    assert np.array_equal(one[..., 0], picture(1))


def test_parity_counts_ties_and_lost_accuracy() -> None:
    expected = np.array([[0.5, 0.49995, 0.00005], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.3, 0.6, 0.1]])
    found = expected[:, [1, 0, 2]].copy()
    found[1:] = expected[1:]
    parity = compare(expected, found)
    assert (parity.images, parity.same_class, parity.ties, parity.accuracy_lost) == (4, 1.0, 1, None)
    assert parity.largest_difference == pytest.approx(5e-5) and parity.passes("fp32")
    found[3] = [0.6, 0.3, 0.1]
    parity = compare(expected, found, np.array([-1, 0, 2, 1]))
    assert parity.same_class == 0.75 and parity.accuracy_lost == pytest.approx(1 / 3)
    assert not any(parity.passes(precision) for precision in ("fp32", "bf16", "int8"))
    found[3] = np.nan
    assert not any(compare(expected, found).passes(precision) for precision in ("fp32", "bf16", "int8"))


def test_the_worst_of_several_ways_counts() -> None:
    ways = [Parity(9, 1e-5, 1.0, 0, 0.02), Parity(9, 3e-4, 0.9, 1, -0.01)]
    assert worst(ways) == Parity(9, 3e-4, 0.9, 1, 0.02) == worst(ways[::-1])
    assert worst(ways[1:]) == ways[1]
    assert worst([Parity(9, 0.0, 1.0, 0, None)]).accuracy_lost is None


def test_int8_may_lose_a_point_and_no_more() -> None:
    rng = np.random.default_rng(0)
    expected = np.eye(3)[rng.integers(0, 3, 1000)] * 0.9 + 0.03
    truth = expected.argmax(1)
    for wrong, right in ((10, True), (11, False)):
        found = expected.copy()
        found[:wrong] = found[:wrong, [1, 2, 0]]
        assert compare(expected, found, truth).passes("int8") is right


@pytest.mark.parametrize("sharing", ["progressive", "cross_stitch"])
def test_networks_of_several_tasks_have_int8_graphs(sharing: str) -> None:
    """Weights that a graph cuts in pieces as it runs cannot be quantized."""
    torch.manual_seed(0)
    heads = (Head("a", "single-label", ("x", "y", "z")), Head("b", "multi-label", ("u", "v")))
    ratios = SCHEDULE if sharing == "progressive" else ()
    specification = Specification("alexnet", "conv_bottleneck", 64, (), heads=heads, sharing=sharing, ratios=ratios)
    network = Inspector(specification).eval()
    images = [np.random.default_rng(seed).integers(0, 256, (64, 64, 1), dtype=np.uint8) for seed in range(4)]
    graph, _ = to_onnx(network)
    small = quantize.to_int8(graph, images)
    scales = [node for node in small.graph.node if node.op_type == "DequantizeLinear"]
    assert len(scales) > 10
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run([PROBABILITIES], {PIXELS: image[None]})[0] for image in images])
    assert np.abs(found - network.score([np.stack(images)])).max() < 0.1


def test_what_cannot_be_written_in_int8_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'data_type'")

    monkeypatch.setattr(quantize, "to_int8", no)
    with pytest.raises(RunFailed, match=r"in int8 \('NoneType' object.*Leave int8 out of --precision"):
        exporting._int8(None, [])
