"""What the benchmarks report, on made-up timings; what they time is run by hand."""

import json
from pathlib import Path

import pytest

from benchmarks import engine, finetuning, ranks, results, species, transformer, variants
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
        *(
            "forward",
            "7 (6-8)",
            "2 (2-2)",
            "**3.5**",
            "4.00",
            "1.00",
            "0.25",
            "1.25 (1 + 0.25)",
            "1.60",
            "-",
            "-",
        )
    ]
    alone = engine.row("forward", {"fast": timings["fast"]})
    assert alone == ["forward", "-", "2 (2-2)", "-", "-", "1.00", "-", "-", "-", "-", "-"]
    older = engine.row("forward", timings | {"base": Timing([4.0])})
    assert older[-2:] == ["4 (4-4)", "**2.00**"]
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
    case = variants.Case(variants.SMALL, variants.WindowRule.of(1024, downstream=64), 100, sample=2, goal=4)
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
    assert all(label in text for label in (">1,024<", ">2,048<", "ms per allele"))


def test_species_are_tabulated_by_the_runs_that_are_there(tmp_path: Path) -> None:
    """Of a start that was not run, and of a length that it was not judged at, there is no number."""
    task = species.TASKS["vertebrates"]
    assert species.judged("v", task, tmp_path) == []
    lengths = {"pretrained": (1024, 4096), "longer": (1024,)}
    for start, of in lengths.items():
        header = ["length", "windows", "kmers_accuracy", "accuracy", "accuracy_low", "accuracy_high"]
        recall = [f"recall_{one}" for one in task.species]
        rows = [[str(length), "240", "0.75", "0.5", "0.25", "1", *["0.125"] * len(recall)] for length in of]
        lines = ["\t".join(row) for row in ([*header, *recall], *rows)]
        species.lengths_of("v", start, tmp_path).write_text("## made up\n" + "\n".join(lines) + "\n")
    assert species.judged("v", task, tmp_path) == ["pretrained", "longer"]
    interval, recalls = "0.500 [0.250, 1.000]", "human 0.12, mouse 0.12, dog 0.12, chicken 0.12"
    assert list(species.length_rows("v", task, tmp_path)) == [
        ["1,024", "240", "0.750", "-", interval, interval, "-", "-", recalls],
        ["4,096", "240", "0.750", "-", interval, "-", "-", "-", recalls],
    ]
    measured = {
        "length": "1024",
        "windows": "240",
        "accuracy": ".5",
        "accuracy_low": ".25",
        "accuracy_high": "1",
    }
    measured |= dict.fromkeys(("kmers_accuracy", "markov_accuracy", "network_accuracy"), "0.75")
    measured |= {f"recall_{one}": "0.125" for one in task.species}
    measured |= {"kmers_difference": ".1", "kmers_difference_low": "-.05", "kmers_difference_high": ".25"}
    line = f"| 1,024 | 240 | 0.750 | 0.750 | 0.750 | {interval} | +0.100 [-0.050, +0.250] |"
    assert line in species.joined_table(task, [measured]).splitlines()


def test_a_labelled_set_is_tabulated_by_the_seeds_that_are_done(tmp_path: Path) -> None:
    labelled = finetuning.Labelled([], "mcc", 3, rerun=".5")
    assert finetuning.row("a set", labelled, tmp_path) is None

    def keep(run: Path, mcc: float, *, baseline: bool) -> None:
        value = {"value": mcc, "low": 0.0, "high": 1.0}
        splits = {name: {"records": 1000, "metrics": {"mcc": value}} for name in ("train", "valid", "test")}
        said = {"splits": splits} | ({"kmers_baseline": {"splits": splits}} if baseline else {})
        run.mkdir(parents=True)
        (run / "metrics.json").write_text(json.dumps(said))

    trials = finetuning.place(tmp_path, "a set", finetuning.PUBLISHED) / "trials"
    keep(trials / "seed-0", 0.5, baseline=True)
    keep(trials / "seed-1", 0.7, baseline=False)
    keep(finetuning.place(tmp_path, "a set", finetuning.PROBE), 0.25, baseline=False)
    sizes, kmers = "1,000 / 1,000 / 1,000", "0.500 [0.000, 1.000]"
    assert finetuning.row("a set", labelled, tmp_path) == [
        *("a set", sizes, "mcc", "3", kmers, "-", "-", "0.600 ± 0.141 (2)", "0.250", ".5")
    ]
    assert finetuning.joined_row("a set", tmp_path) is None
    frozen = finetuning.place(tmp_path, "a set", finetuning.JOINED)
    keep(frozen, 0.5, baseline=True)
    runs = {
        frozen: (-0.25, -1.0, 0.5),
        trials / "seed-0": (0.1, 0.05, 0.2),
        trials / "seed-1": (0.3, -0.1, 0.4),
    }
    for run, (value, low, high) in runs.items():
        said = json.loads((run / "metrics.json").read_text())
        verdict = {"metric": "mcc", "difference": {"value": value, "low": low, "high": high}}
        # of all trained, the second seed's network is used alone
        network = None if run.name == "seed-1" else {"test": {"metrics": {"mcc": {"value": 0.25}}}}
        (run / "metrics.json").write_text(json.dumps(said | {"verdict": verdict, "network": network}))
    assert finetuning.joined_row("a set", tmp_path) == [
        *("a set", "1,000 / 1,000", "mcc", kmers),
        *("0.250", "0.500", "-0.250 [-1.000, +0.500]"),
        *("0.475 ± 0.318 (2)", "0.600 ± 0.141 (2), 1 not joined", "+0.200, 1 above, 0 below"),
    ]
