"""Tests between methods, against textbooks and independent counting; the picture of mean ranks."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from steelshift.bench import statistics as ours
from steelshift.bench.running import COLUMNS
from steelshift.bench.table import draw_picture, overall, render_table
from steelshift.cli import main
from steelshift.errors import UsageError
from steelshift.report import ranks

# Demšar 2006, table 6: AUC of C4.5, with m, with cf, with both, on 14 data sets. Of the last but one he prints 0.975
# twice and ranks them 2 and 3.
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9752, 0.975], [0.957, 0.978, 0.946, 0.970],
    ]
)  # fmt: skip
TIES = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * 4 * 15)  # three twos and a four; the paper does not correct for them


def table(scores: np.ndarray, source_only: float = 0.5, seeds: int = 2) -> list[dict]:
    """Rows of scores, cells x methods; nan: refused."""
    rows = []
    for cell, values in enumerate(scores):
        for number, score in enumerate(values):
            row = {"pair": f"p{cell // seeds}", "method": f"m{number}", "seed": str(cell % seeds), "error": ""}
            row |= {"source_only": source_only, "selected": score, "last": score, "peeked": score, "oracle": None}
            row |= {"steps": "", "by_step": "", "train_seconds": None}
            refused = {"error": "not_finite"} | dict.fromkeys(("selected", "last", "peeked"))
            rows.append(row if np.isfinite(score) else row | refused)
    return rows


def written(rows: list[dict], path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


# Against textbooks.


def test_mean_ranks_friedman_and_critical_difference_are_those_of_demsar() -> None:
    found = ours.compare(table(AUC))
    np.testing.assert_allclose(found.ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert ours.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    chi2 = 9.28 / TIES
    wanted = stats.f.sf(13 * chi2 / (14 * 3 - chi2), 3, 39)
    assert ours.friedman(AUC) == pytest.approx(wanted, rel=0.01) and wanted < 0.05
    assert ours.cliques(found.ranks, 1.25) == [[3, 1, 2, 0]]  # the paper: not powerful enough to tell any apart


def test_nemenyi_constants_are_those_of_demsars_table_5() -> None:
    wanted = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    found = [ours.critical_difference(k, 10) / np.sqrt(k * (k + 1) / 60) for k in range(2, 11)]
    np.testing.assert_allclose(found, wanted, atol=0.0011)


def test_holm_is_that_of_the_textbooks() -> None:
    assert ours.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ours.holm([0.016, 0.019, 0.607]) == pytest.approx([0.048, 0.048, 0.607])  # Demšar 3.2.2: two are rejected
    assert ours.holm([]) == [] and ours.holm([0.9, 0.8]) == [1.0, 1.0]


def test_signed_ranks_of_demsars_table_2() -> None:
    """T = 12, the largest that tables have as significant at 1 % for 14 data sets; two zeros, whose ranks he splits."""
    differences = np.round(AUC[:, 1] - AUC[:, 0], 6)
    assert stats.wilcoxon(differences, zero_method="zsplit").statistic == 12
    [p] = ours.signed_ranks(differences[:, None])
    assert 0.005 < p < 0.01


@given(st.lists(st.integers(-5, 5), min_size=6, max_size=9).filter(any))
@settings(max_examples=30, deadline=None)
def test_signed_ranks_are_those_of_scipy(values: list[int]) -> None:
    """With ties and zeros by its permutations, without by its exact distribution."""
    column = np.array(values, float)
    wanted = stats.wilcoxon(column, zero_method="zsplit", method=stats.PermutationMethod()).pvalue
    assert ours.signed_rank(column) == pytest.approx(wanted)
    untied = np.random.default_rng(len(values)).normal(sum(values) / 9, 1, 40)
    assert ours.signed_rank(untied) == pytest.approx(stats.wilcoxon(untied, method="exact").pvalue)


def test_the_smallest_number_of_cells_is_the_smallest_that_can_be_significant() -> None:
    up = np.linspace(0.1, 0.2, ours.LEAST_CELLS)[:, None]
    assert ours.signed_ranks(up) == [pytest.approx(2 / 2**6)]
    assert ours.signed_ranks(up[1:]) == [None]


def test_what_does_not_differ_is_not_tested_and_makes_no_other_test_stricter() -> None:
    up = np.linspace(0.1, 0.2, 8)
    same = np.full(8, 0.1 + 0.2 - 0.3)  # not quite 0
    assert ours.signed_ranks(np.stack([up, same, -up], 1)) == [pytest.approx(4 / 2**8), None, pytest.approx(4 / 2**8)]
    assert ours.friedman(np.full((8, 3), 0.7)) == 1 and ours.friedman(np.tile([0.1, 0.2, 0.3], (8, 1))) == 0


def test_chance_alone_is_rarely_significant() -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(12, 4)).round(1) for _ in range(300)]
    wrong = [min(ours.signed_ranks(scores)) < 0.05 for scores in drawn]  # any of four
    assert np.mean(wrong) < 0.08
    assert np.mean([ours.friedman(scores) < 0.05 for scores in drawn]) < 0.08


@given(st.lists(st.integers(0, 12), min_size=2, max_size=9), st.integers(1, 8))
def test_bars_join_exactly_what_lies_closer_than_the_critical_difference(values: list[int], width: int) -> None:
    places = np.array(values, float)
    groups = [set(group) for group in ours.cliques(places, width)]
    for a, b in itertools.combinations(range(len(values)), 2):
        assert any({a, b} <= group for group in groups) == (abs(places[a] - places[b]) < width)
    assert not any(a <= b for a, b in itertools.permutations(groups, 2))


# What is compared.


def test_only_cells_that_all_methods_have_are_compared() -> None:
    scores = np.random.default_rng(0).uniform(0.5, 0.9, (8, 3)).round(4)
    whole = ours.compare(table(scores))
    assert len(whole.cells) == whole.possible == 8
    np.testing.assert_array_equal(whole.values("selected"), scores)
    holed = scores.copy()
    holed[2, 1] = np.nan
    part = ours.compare([row for row in table(holed) if (row["pair"], row["seed"], row["method"]) != ("p3", "1", "m2")])
    assert len(part.cells) == 6 and part.possible == 8 and not part.left_out
    np.testing.assert_array_equal(part.values("selected"), np.delete(scores, [2, 7], axis=0))


def test_a_method_that_refuses_leaves_the_others_as_they_were() -> None:
    scores = np.random.default_rng(0).uniform(0.5, 0.9, (8, 4)).round(4)
    refusing = scores.copy()
    refusing[:5, 3] = np.nan
    shown = overall(ours.compare(table(refusing)))
    assert shown[:-1] == overall(ours.compare(table(scores[:, :3])))
    assert (shown[-1]["method"], shown[-1]["cells"], shown[-1]["selected"]) == ("m3", "3", "n/a")
    nothing = ours.compare(table(np.full((4, 2), np.nan)))
    assert nothing.methods == nothing.cells == () and len(overall(nothing)) == 2


def test_no_cell_in_common_is_said(tmp_path: Path) -> None:
    scores = np.full((4, 2), 0.5)
    scores[:2, 0] = scores[2:, 1] = np.nan
    shown = render_table(written(table(scores), tmp_path / "rows.csv"), "md")
    assert "there is none that all methods have" in shown and shown.count("n/a") == 4  # 2 pairs, 2 methods


def test_a_pair_counts_once_however_many_seeds_it_has() -> None:
    found = ours.compare(table(np.array([[0.5], [0.5], [0.8]])))
    assert found.over_pairs(found.values("selected")) == pytest.approx([0.65])


def test_gain_is_against_the_source_only_of_the_same_run() -> None:
    """A method on another encoder has another baseline."""
    rows = [row | ({"source_only": 0.8} if row["method"] == "m1" else {}) for row in table(np.full((8, 2), 0.7))]
    np.testing.assert_allclose(ours.compare(rows).gain, np.tile([0.2, -0.1], (8, 1)))


def test_the_reference_is_the_best_or_the_one_that_is_named() -> None:
    scores = np.random.default_rng(0).uniform(0.5, 0.6, (8, 3)).round(4) + np.array([0, 0.3, 0.1])
    assert ours.compare(table(scores)).reference == "m1"
    named = ours.compare(table(scores), "m2")
    shown = {row["method"]: row for row in overall(named)}
    assert shown["m2"]["difference"] == shown["m2"]["p difference"] == ""
    assert shown["m1"]["difference"].startswith("+") and float(shown["m1"]["p difference"]) < 0.05
    assert [row["method"] for row in overall(named)] == ["m1", "m2", "m0"]
    with pytest.raises(UsageError) as caught:
        ours.compare(table(scores), "m9")
    assert caught.value.key == "not_compared"


# The picture.

LONG = [
    "自适应嵌入样本与动态损失权重的对抗域分离与适应方法（默认设置）",
    "a name that is $long_1$ & has <marks>",
    "WWWWWWWWMMMMMMMM",
]


def test_no_name_reaches_the_edge_or_another(tmp_path: Path) -> None:
    names = [name for name in LONG if ranks.font_for(name) or not ranks.letters_lacking(name)] * 6
    mean = np.linspace(1, len(names), len(names)) ** 0.9  # crowded
    for count in (3, len(names)):
        groups = ours.cliques(mean[:count], 6.0)
        drawn = ranks.draw_ranks(names[:count], mean[:count], 1.0, groups, "about", "png")
        (tmp_path / "x.png").write_bytes(drawn)
        with Image.open(tmp_path / "x.png") as picture:
            grey = np.asarray(picture.convert("L"))
        edge = np.concatenate([grey[:4].ravel(), grey[-4:].ravel(), grey[:, :4].ravel(), grey[:, -4:].ravel()])
        assert (edge == 255).all()
    written = ranks.draw_ranks(LONG, [1.0, 2.0, 3.0], 1.5, [[0, 1], [1, 2]], "about", "svg").decode()
    assert written == ranks.draw_ranks(LONG, [1.0, 2.0, 3.0], 1.5, [[0, 1], [1, 2]], "about", "svg").decode()
    assert LONG[0] in written and "$long_1$ &amp; has &lt;marks&gt;" in written


def test_bars_at_one_level_do_not_touch() -> None:
    levels = ranks._levels([(1, 3), (2, 4), (3.5, 6), (5, 7)])
    for (low, high, level), (low2, high2, level2) in itertools.combinations(levels, 2):
        assert level != level2 or high < low2 or high2 < low
    assert max(level for *_, level in levels) == 1


def test_the_command_draws_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = np.random.default_rng(0).uniform(0.5, 0.9, (8, 3)).round(4)
    results = str(written(table(scores), tmp_path / "results.csv"))
    assert main(["bench-table", results, "--picture", str(tmp_path / "a.svg"), "--against", "m0"]) == 0
    assert "against m0" in capsys.readouterr().out and "m2" in (tmp_path / "a.svg").read_text()
    assert main(["bench-table", results, "--against", "nobody"]) == 2
    assert main(["bench-table", results, "--picture", str(tmp_path / "a.jpg")]) == 2
    few = written(table(scores[:5]), tmp_path / "few.csv")
    assert main(["bench-table", str(few), "--picture", str(tmp_path / "b.svg")]) == 2
    assert not (tmp_path / "b.svg").exists()


def test_a_machine_without_the_letters_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row | {"method": "方法" + row["method"]} for row in table(np.eye(8, 3))]
    results = written(rows, tmp_path / "results.csv")
    monkeypatch.setattr(ranks, "font_for", lambda text: None)
    with pytest.raises(UsageError) as caught:
        draw_picture(results, tmp_path / "a.png")
    assert caught.value.key == "no_letters" and "方" in str(caught.value)
    draw_picture(results, tmp_path / "a.svg")
    assert "方法m0" in (tmp_path / "a.svg").read_text(encoding="utf-8")
