"""Whole strips: tiles say what images say, defects are one entry across borders, memory does not grow with length."""

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from builders import encoded, picture, write
from steelshift.cli import main
from steelshift.data.decode import Unreadable, decode
from steelshift.data.strips import open_strip
from steelshift.data.table import Place
from steelshift.errors import ArtifactRefused, UsageError
from steelshift.inspection import first_stage, inspector
from steelshift.inspection.inspector import Inspector
from steelshift.inspection.sharpen import contrast, sharpen
from steelshift.inspection.specification import Answer, Specification, score_each
from steelshift.inspection.strip import Findings, Layout, inspect_strips, write_defects
from steelshift.light import prepare, window_means
from steelshift.nn.encoders import even_light, light_window
from steelshift.resample import resample, to_grey, whole

CLASSES = ("qualified", "scratch", "patch")


class ByBrightness:
    """A judge that calls bright tiles scratch and dark ones patch: tests know what it says without a network."""

    def __init__(self) -> None:
        self.specification = Specification("none", "none", 16, CLASSES, threshold=0.8)
        self.reference, self.identity = None, "none"

    def score(self, groups):
        means = np.concatenate([images.mean((1, 2, 3)) for images in groups])
        found = np.full((len(means), 3), 0.05, np.float32)
        found[np.arange(len(means)), np.where(means > 170, 1, np.where(means < 80, 2, 0))] = 0.9
        return found

    def answer(self, groups, *, maps=False):
        scores = self.score(groups)
        return Answer(scores, scores)


def strip_file(folder: Path, pixels: np.ndarray, kind: str = "PNG", **options) -> Place:
    return Place(write(folder / f"带 {len(pixels)}.{kind.lower()}", encoded(pixels, kind, **options)), None)


def judged(place: Place, layout: Layout, judge=None, **options):
    findings = Findings()
    rows = list(inspect_strips(judge or ByBrightness(), [place], layout, findings, **options))
    return rows, findings


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inspector, Path]:
    """An AlexNet with random weights, and its folder."""
    torch.manual_seed(0)
    made = Inspector(Specification("alexnet", "conv_bottleneck", 64, CLASSES, threshold=0.4))
    folder = tmp_path_factory.mktemp("inspector") / "检测器"
    inspector.save(made, folder, "a card", [picture(1)[..., None]])
    return made, folder


# Tiles.


@pytest.mark.parametrize(("tile", "overlap"), [(64, 0.0), (48, 0.5)])
def test_a_tile_says_what_it_says_as_an_image_of_its_own(network, tmp_path: Path, tile: int, overlap: float) -> None:
    pixels = picture(2, 150, 230)
    rows, _ = judged(strip_file(tmp_path, pixels), Layout(tile, overlap), network[0])
    boxes = [tuple(map(int, row.tile.split())) for row in rows]
    alone = [score_each(network[0], [pixels[y : y + h, x : x + w, None].copy()])[0] for x, y, w, h in boxes]
    expected = np.array([scores.max() for scores in alone])
    assert len(rows) == (12 if tile == 64 else 6 * 9) and np.ptp(expected) > 0.01
    assert np.abs(np.array([row.p for row in rows]) - expected).max() <= 1e-5
    assert [row.class_ for row in rows] == [CLASSES[scores.argmax()] for scores in alone]


def test_tiles_cover_every_pixel_and_overlap_as_asked(tmp_path: Path) -> None:
    rows, _ = judged(strip_file(tmp_path, picture(1, 100, 131)), Layout(32, 0.25))
    covered = np.zeros((100, 131), int)
    for x, y, width, height in (map(int, row.tile.split()) for row in rows):
        assert width == height == 32
        covered[y : y + height, x : x + width] += 1
    assert covered.min() == 1
    assert [int(row.tile.split()[0]) for row in rows][:6] == [0, 24, 48, 72, 96, 99]


def test_rows_come_in_order_whatever_the_first_stage_passes(tmp_path: Path) -> None:
    class EveryThird:
        threshold = 0.0

        def scores(self, band, starts):
            return np.array([1.0 if (start // 16) % 3 == 0 else -1.0 for start in starts])

    rows, findings = judged(strip_file(tmp_path, picture(1, 320, 480)), Layout(16), first_stage=EveryThird())
    places = [tuple(map(int, row.tile.split()[1::-1])) for row in rows]
    assert places == sorted(places) and len(rows) == findings.tiles == 600 and findings.forwarded == 200
    passed = [row for row in rows if row.p is None]
    assert len(passed) == 400 and {(row.class_, row.decision) for row in passed} == {("qualified", "accept")}


# Defects.


def test_a_defect_across_borders_of_tiles_is_one_entry(tmp_path: Path) -> None:
    pixels = np.full((96, 160), 128, np.uint8)
    pixels[16:64, 32:48] = 250  # three tiles below each other
    pixels[64:80, 48:64] = 250  # and one at their corner
    pixels[16:32, 48:64] = 20  # another class beside them
    pixels[80:, 144:] = 250  # one far away
    layout = Layout(16, mm_per_pixel=0.5, speed=2.0)
    rows, findings = judged(strip_file(tmp_path, pixels), layout)
    one, other, far = sorted(findings.defects, key=lambda defect: (defect.y, defect.x))
    assert (one.class_, one.tiles, one.x, one.y, one.width, one.height) == ("scratch", 4, 32, 16, 32, 64)
    assert (other.class_, other.tiles, far.tiles) == ("patch", 1, 1)
    assert (one.x_mm, one.y_mm, one.width_mm, one.height_mm) == (16.0, 8.0, 16.0, 32.0)
    assert (far.along_m, far.along_s) == (0.04, 0.02)
    assert one.p == pytest.approx(0.9) and one.decision == "accept"
    assert [defect.number for defect in findings.defects] == [1, 2, 3]
    assert sum(row.class_ == "scratch" for row in rows) == 5


def test_defects_lie_along_the_direction_that_is_said(tmp_path: Path) -> None:
    pixels = np.full((32, 160), 128, np.uint8)
    pixels[:16, 96:112] = 250
    pixels[16:, 32:48] = 250
    found = {}
    for along in ("x", "y"):
        layout = Layout(16, along=along, mm_per_pixel=1.0)
        found[along] = judged(strip_file(tmp_path, pixels), layout)[1].defects
    assert [(defect.x, defect.along_m) for defect in found["x"]] == [(32, 0.032), (96, 0.096)]
    assert [(defect.x, defect.along_m) for defect in found["y"]] == [(96, 0.0), (32, 0.016)]


def test_the_map_shows_what_lies_where(tmp_path: Path) -> None:
    pixels = np.full((64, 128), 128, np.uint8)
    pixels[16:32, 64:96] = 250
    _, findings = judged(strip_file(tmp_path, pixels), Layout(16), maps=tmp_path / "maps")
    shown = np.asarray(Image.open(findings.maps[0]).convert("RGB")).astype(int)
    assert shown.shape == (64, 128, 3)
    assert (shown[:, :60] == 128).all() and (shown[40:] == 128).all()
    inside = shown[20:28, 80:92]
    assert (np.ptp(inside, axis=2) > 20).all()  # tinted


# Reading.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "whole"), [("BMP", False), ("TIFF", False), ("PNG", True), ("JPEG", True)])
def test_rows_in_pieces_are_those_of_the_whole(tmp_path: Path, kind: str, whole: bool, channels: int) -> None:
    colour = np.stack([picture(seed, 67, 45) for seed in range(channels)], axis=2)
    content = encoded(colour[..., 0] if channels == 1 else colour, kind)
    path = write(tmp_path / "a.dat", content)
    expected = decode(content).pixels
    with open_strip(Place(path, None)) as strip:
        assert (strip.width, strip.height, strip.whole) == (45, 67, whole)
        pieces = [strip.read(top, min(top + 20, 67)) for top in range(0, 67, 20)]
        assert np.array_equal(np.concatenate(pieces), expected)
    with open_strip(Place(path, None, crop=(5, 7, 30, 40))) as strip:
        assert np.array_equal(strip.read(3, 40), expected[10:47, 5:35])


@pytest.mark.parametrize("top", [4095, 4096, 65535])
def test_deep_strips_are_scaled_as_images_are(tmp_path: Path, top: int) -> None:
    values = (np.linspace(0, top, 40 * 30).reshape(40, 30)).astype(np.uint16)
    content = encoded(values, "TIFF")
    with open_strip(Place(write(tmp_path / "a.tif", content), None)) as strip:
        expected = decode(content)
        assert not strip.whole and strip.bit_depth == expected.bit_depth
        assert np.array_equal(strip.read(0, 40), expected.pixels)


def test_turned_and_compressed_files_are_decoded_whole(tmp_path: Path) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[274] = 6
    for options in ({"tiffinfo": info}, {"compression": "tiff_lzw"}):
        content = encoded(picture(3, 40, 60), "TIFF", **options)
        with open_strip(Place(write(tmp_path / "a.tif", content), None)) as strip:
            assert strip.whole and np.array_equal(strip.read(0, strip.height), decode(content).pixels)


def test_what_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    large = encoded(picture(1, 300, 200), "BMP")
    names = {
        "cut.bmp": large[:-100],
        "bomb.bmp": large[:18] + (10**9).to_bytes(4, "little") * 2 + large[26:],
        "small.png": encoded(picture(1, 20, 300)),
        "text.tif": b"II*\0 no image",
        "empty.bmp": b"",
    }
    for name, content in names.items():
        write(tmp_path / name, content)
    layout = Layout(32)
    for name in [*names, "not there.png"]:
        rows, _ = judged(Place(tmp_path / name, None), layout)
        assert [row.decision for row in rows] == ["unreadable"] and rows[0].error
    with (
        pytest.raises(Unreadable, match="more than"),
        open_strip(strip_file(tmp_path, picture(1, 100, 100)), max_pixels=9999),
    ):
        pass


def test_memory_is_flat_in_the_length_of_a_strip(tmp_path: Path) -> None:
    """What stays is some bytes a tile: a hundredth of what a strip ten times as long adds in pixels."""
    peaks = []
    for height in (2_000, 20_000):
        path = tmp_path / f"{height}.bmp"
        band = np.tile(picture(1, 100, 1000), (height // 100, 1))
        Image.fromarray(band).save(path)
        del band
        tracemalloc.start()
        for _ in inspect_strips(ByBrightness(), [Place(path, None)], Layout(100), Findings(), tmp_path / "maps"):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] <= 1_000_000 < 18_000_000 // 10


# Light and heat.


@pytest.mark.parametrize("size", [8, 9, 64, 97, 224])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [1, 0.7, 2.3])
def test_preparing_without_torch_is_that_of_the_encoder(size: int, channels: int, share: float) -> None:
    shape = (round(share * size), max(1, round(share * share * size)))
    grey = [picture(seed, *shape) for seed in range(channels * 3)]
    images = np.stack(grey).reshape(3, channels, *shape).transpose(0, 2, 3, 1)
    given = torch.from_numpy(images)
    resized = resample(to_grey(given), whole(given), size)
    expected = even_light(resized, light_window(size)).numpy()
    found = np.empty_like(expected)
    prepare(images, found)
    # The matrices' weights are differences of large numbers: they are a hundredth of a grey level off.
    assert np.abs(found - expected).max() <= (1e-5 if share == channels == 1 else 2e-3)


@pytest.mark.parametrize("side", [3, 17, 57])
def test_means_over_windows(side: int) -> None:
    image = picture(0, 40, 70)
    wide = np.pad(image.astype(float), side // 2, mode="reflect")
    expected = np.lib.stride_tricks.sliding_window_view(wide, (side, side)).mean((2, 3))
    assert np.abs(window_means(image, side) - expected).max() <= 1e-4
    assert np.abs(window_means(image.astype(np.float32), side) - expected).max() <= 1e-4


def test_heat_lies_where_evidence_and_contrast_are() -> None:
    image = np.full((64, 64), 120, np.uint8)
    image[10:14, 8:28] = 200  # a scratch where the evidence is
    image[50:54, 40:60] = 200  # and one where it is not
    evidence = np.zeros((4, 4), np.float32)
    evidence[0, :2] = 1.0
    heat = sharpen(evidence, image)
    assert heat.shape == (64, 64) and heat.max() == pytest.approx(1.0) and heat.min() >= 0
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 9 <= row <= 14 and 7 <= column <= 28
    assert heat[50:54, 40:60].max() < 0.05 < contrast(image)[50:54, 40:60].min()
    assert not sharpen(np.zeros((4, 4), np.float32), image).any()


def test_heat_maps_of_an_inspector(network) -> None:
    prepared = network[0].prepare(torch.from_numpy(np.stack([picture(seed, 64, 64)[..., None] for seed in range(3)])))
    before = prepared.clone()
    heat = network[0].heat_maps(prepared, torch.tensor([0, 1, 2]))
    assert heat.shape == (3, 64, 64) and heat.min() >= 0 and heat.max() <= 1 + 1e-6
    assert torch.equal(prepared, before) and not prepared.requires_grad


# The first stage.


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of tiles: noise of any brightness, half of them with a line; four of a group."""
    folder, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    lines = ["path,crop,label,group"]
    for number in range(150):
        sheet = rng.normal(rng.uniform(60, 190), 6, (64, 64))
        for x, y in ((0, 0), (32, 0), (0, 32), (32, 32)):
            defective = rng.random() < 0.5
            if defective:
                at = rng.integers(4, 26)
                sheet[y : y + 32, x + at : x + at + 3] += rng.choice([-50, 50])
            lines.append(f"{number}.png,{x} {y} 32 32,{'line' if defective else 'qualified'},{number}")
        write(folder / f"{number}.png", encoded(sheet.clip(0, 255).astype(np.uint8)))
    write(folder / "tiles.csv", "\n".join(lines).encode())
    return folder / "tiles.csv"


@pytest.fixture(scope="module")
def fitted(tiles: Path) -> Path:
    out = tiles.parent / "first.json"
    assert main(["first-stage", "--source", str(tiles), "--out", str(out), "--miss", "0.02"]) == 0
    return out


def test_a_first_stage_tells_lines_from_noise_and_keeps_its_word(fitted: Path) -> None:
    made = first_stage.load(fitted)
    missed, forwarded = made.measured["missed"], made.measured["qualified_forwarded"]
    assert made.tile == 32 and missed["n"] > 40 and missed["low"] <= 0.02 and forwarded["rate"] < 0.2
    rng = np.random.default_rng(1)
    clean = rng.normal(120, 6, (40, 32, 32)).clip(0, 255).astype(np.uint8)
    lined = clean.copy()
    lined[:, :, 10:13] += 50
    assert (made.score(clean) < made.threshold).mean() > 0.7 and (made.score(lined) >= made.threshold).all()
    band = np.concatenate(list(clean[:3]), axis=1)[..., None]
    assert np.allclose(made.scores(band, [0, 32, 64]), made.score(clean[:3]))


def test_groups_stay_in_one_part_and_judge_tiles_are_never_seen(tiles: Path) -> None:
    pixels, defective, parts = first_stage._read([tiles], None, lambda done: None)
    assert pixels.shape == (600, 32, 32) and set(parts) == {0, 1, 2} and 200 < defective.sum() < 400
    assert all(len(set(parts[start : start + 4])) == 1 for start in range(0, 600, 4))


def test_a_first_stage_refuses_what_it_is_not_for(fitted: Path, tmp_path: Path) -> None:
    made = first_stage.load(fitted)
    with pytest.raises(UsageError, match="32"):
        made.check(64, Specification("none", "none", 32, CLASSES))
    with pytest.raises(UsageError, match="qualified"):
        made.check(32, Specification("none", "none", 32, ("scratch", "patch")))
    record = json.loads(fitted.read_text(encoding="utf-8"))
    for change in ({"schema": 9}, {"weights": [[[1.0]], [[1.0]]]}, {"spread": [0.0] * 42}, {"other": 1}):
        path = write(tmp_path / "broken.json", json.dumps(record | change).encode())
        with pytest.raises(ArtifactRefused):
            first_stage.load(path)
    assert main(["first-stage", "--source", str(tmp_path), "--out", str(tmp_path / "b.json")]) == 3
    listed = write(tmp_path / "m.csv", b"path,label\na.png,qualified\n")
    assert main(["first-stage", "--source", str(listed), "--out", str(listed)]) == 2
    assert listed.read_bytes() == b"path,label\na.png,qualified\n"


# The command.


def test_command_writes_table_defects_and_maps(network, fitted: Path, tmp_path: Path) -> None:
    strip_file(tmp_path / "strips", picture(1, 128, 192))
    write(tmp_path / "strips" / "text.png", b"no image")
    arguments = ["inspect", str(network[1]), str(tmp_path / "strips"), "--strip", "--tile", "32"]
    for suffix in ("csv", "jsonl"):
        assert main([*arguments, "--out", str(tmp_path / f"t.{suffix}"), "--first-stage", str(fitted)]) == 0
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25 and [row["decision"] for row in rows].count("unreadable") == 1
    with (tmp_path / "t-defects.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [defect["class"] for defect in listed] == [
        defect["class"] for defect in json.loads((tmp_path / "t-defects.json").read_text(encoding="utf-8"))
    ]
    assert len(list((tmp_path / "t-maps").iterdir())) == 1
    inside = tmp_path / "strips" / "t.csv"
    for _ in range(2):  # what a run has written is nothing that the next one looks at
        assert main([*arguments, "--out", str(inside)]) == 0
        with inside.open(encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) == 25
    listed = write(tmp_path / "m.csv", b"path\nstrips/0.png\n")
    assert main([*arguments[:2], str(listed), *arguments[3:], "--out", str(listed)]) == 2
    assert listed.read_bytes() == b"path\nstrips/0.png\n"
    assert main([*arguments[:3], "--out", str(tmp_path / "t.csv"), "--tile", "32"]) == 2
    assert main([*arguments, "--out", str(tmp_path / "t.csv"), "--speed", "3"]) == 2
    assert main([*arguments, "--out", str(tmp_path / "t.csv"), "--overlap", "1"]) == 2


def test_a_list_without_defects_has_its_columns(tmp_path: Path) -> None:
    write_defects([], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").startswith("path,number,class,p,decision,tiles,x,y,width")
