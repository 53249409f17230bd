"""What the benchmarks report, on made-up timings; what they time is run by hand."""

from pathlib import Path

import pytest

from benchmarks import engine, ranks, results, transformer, variants
from benchmarks.processes import Timing
from hyenacli.genome.variant import Variant


def test_a_row_has_ratio_memory_and_floor() -> None:
    timings = {
        "plain": Timing([8.0, 6.0, 7.0], 4 << 30),
        "fast": Timing([2.0], 1 << 30),
        "products": Timing([1.0]),
        "transforms": Timing([0.25]),
    }
    assert engine.row("forward", timings) == [
        *("forward", "7 (6-8)", "2 (2-2)", "**3.5**", "4.00", "1.00", "0.25", "1.25 (1 + 0.25)", "1.60")
    ]
    alone = engine.row("forward", {"fast": timings["fast"]})
    assert alone == ["forward", "-", "2 (2-2)", "-", "-", "1.00", "-", "-", "-"]
    generation = engine.row("generation", {"plain": timings["plain"], "fast": timings["fast"]})
    assert generation[1:4] == ["1,000 x 7 (6-8)", "2 (2-2)", "**3,500.0**"]


def test_attention_is_extrapolated_by_its_last_two_lengths_and_marked() -> None:
    found = {("forward", n, "hyena"): n / 8 for n in (4, 8, 16)}
    found |= {("forward", n, "attention"): 2 * n + n * n for n in (4, 8)}
    assert transformer.rows(found)[1:] == [
        ["Forward", "8", "1", "80", "**80.0**"],
        ["Forward", "16", "2", "(288, extrapolated)", "(144)"],
    ]


def test_only_the_marked_section_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "RESULTS.md"
    monkeypatch.setattr(results, "RESULTS", path)
    path.write_text("by hand\n<!-- a:begin -->\nold\n<!-- a:end -->\nalso by hand\n")
    results.write_section("a", "new")
    results.write_section("b", "other")
    text = path.read_text()
    assert "old" not in text
    assert text.startswith("by hand\n<!-- a:begin -->\n")
    assert "\n\nnew\n<!-- a:end -->\nalso by hand\n" in text
    assert text.endswith("other\n<!-- b:end -->\n")


def test_every_case_can_be_made() -> None:
    assert set(engine.PLAN) == set(engine.CASES)
    assert set(engine.QUICK) < set(engine.CASES)
    work = transformer.CASES["forward 1024"]["attention"]
    assert callable(work)


def test_processes_are_compared_with_one_on_the_same_windows() -> None:
    found = {
        "8 x 4: one": [(4.0, 1.0), (2.0, 1.5), (3.0, 1.0)],
        "8 x 4: two": [(1.5, 1.0)],
        "2 x 16: one": [(8.0, 2.0)],
    }
    assert ranks.lines(found) == [
        ["8 x 4", "one", "3 (2-4)", "**1.00**", "1.50"],
        ["8 x 4", "two", "1.5 (1.5-1.5)", "**2.00**", "1.00"],
        ["2 x 16", "one", "8 (8-8)", "**1.00**", "2.00"],
    ]


def test_alleles_are_compared_one_by_one() -> None:
    case = variants.Case(variants.SMALL, variants.rule_of(1024, 64), 100, sample=2, goal=4)
    timings = {"brute force": Timing([3.0, 1.0, 2.0]), "shared": Timing([2.0])}
    seconds = variants.per_allele(timings, 10, case.sample)
    assert seconds == {"brute force": 1.0, "shared": 0.2}
    assert variants.row("x", case, seconds, 10) == ["x", "10 (2)", "1,000", "200", "**5**", "4"]


def test_a_sample_of_alleles_is_spread_evenly() -> None:
    alleles = [Variant("c", at, b"A", b"C") for at in range(10)]
    assert [allele.position for allele in variants.spread(alleles, 2)] == [2, 7]
    assert variants.spread(alleles[:1], 3) == alleles[:1]


def test_the_cost_is_drawn_against_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "PICTURE", tmp_path / "cost.svg")
    variants.draw({1024: {"brute force": 0.1, "shared": 0.020}, 2048: {"brute force": 0.2, "shared": 0.030}})
    text = (tmp_path / "cost.svg").read_text()
    assert all(label in text for label in (">1k<", ">2k<", "ms per allele"))
