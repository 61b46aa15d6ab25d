"""Real images, where STEELSHIFT_DATA names a folder of them: what is known of them must be found."""

import os
from pathlib import Path

import pytest

from steelshift.adapt import fit
from steelshift.data.check import check_lines
from steelshift.data.tiles import QUALIFIED, write_tiles
from steelshift.judging import evaluate
from steelshift.training.config import Config

DATA = Path(os.environ.get("STEELSHIFT_DATA", ""))
pytestmark = pytest.mark.skipif(
    "STEELSHIFT_DATA" not in os.environ, reason="STEELSHIFT_DATA names no folder of real images"
)


def test_two_mills_are_checked_and_their_known_duplicates_found() -> None:
    found = check_lines([DATA / "NEU-CLS"], [DATA / "X-SDD"], DATA / "pairs" / "neu-xsdd-4.yaml")
    source, target = found["source"], found["target"]
    assert source["per_class"] == {"inclusion": 300, "patches": 300, "rolled-in scale": 300, "scratches": 300}
    assert source["sizes"] == {"200 x 200": 1200} and next(iter(target["sizes"])) == "128 x 128"
    assert [sorted(Path(path).name for path in twins) for twins in source["duplicates"]] == [
        ["Pa_101.png", "Pa_105.png"]
    ]
    assert all("red iron" in path for twins in target["duplicates"] for path in twins) and target["duplicates"]
    assert found["duplicates_across"] == [] and not source["unreadable"] and not target["unreadable"]
    # Colour files with grey content are one channel, so that no discriminator learns the file type.
    assert source["colour"] == target["colour"] == 0
    assert any("Crazing" in sentence for sentence in found["findings"])


def test_tiles_at_native_resolution_follow_the_masks(tmp_path: Path) -> None:
    counts = write_tiles(DATA / "MT" / "exp1", tmp_path / "tiles.csv", tile=96, masks=DATA / "MT-masks" / "exp1")
    assert set(counts) <= {QUALIFIED, "Free", "Blowhole", "Break", "Crack", "Fray", "Uneven"}
    qualified = counts.get(QUALIFIED, 0) + counts.get("Free", 0)
    assert qualified > 0.8 * sum(counts.values()) and counts["Blowhole"] >= 15


def test_an_inspector_moves_from_mill_to_mill(tmp_path: Path) -> None:
    """That it runs, on images of two sizes and file types; how well it does is a matter of benchmarks."""
    before = {path: path.stat().st_mtime_ns for path in DATA.glob("*/*")}
    config = Config(
        source=(DATA / "NEU-CLS",), target=(DATA / "X-SDD",), classes=DATA / "pairs" / "neu-xsdd.yaml",
        out=tmp_path / "run", size=64, steps=6, pretrain_steps=6, batch=12, candidates=2,
    )  # fmt: skip
    report = fit(config)
    lines = report["lines"]
    assert lines["source"]["images"] == lines["target"]["images"]
    scored = evaluate(tmp_path / "run", (DATA / "X-SDD",), DATA / "pairs" / "neu-xsdd.yaml", "test")
    assert scored["mean_class_accuracy"] == pytest.approx(report["target"]["selected"])
    assert before == {path: path.stat().st_mtime_ns for path in DATA.glob("*/*")}
