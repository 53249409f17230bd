"""Haplotypes of several variants: two whole passes per haplotype and strand give the same."""

import csv
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.errors import UsageError
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.variant import Variant
from hyenacli.variants.haplotypes import WindowRule, tokens
from hyenacli.variants.input import parse_typed
from hyenacli.variants.phasing import joint_and_each, phased_rule
from hyenacli.variants.scorer import ScoringOptions, VariantScorer
from hyenadna import HyenaDNA, load_model, save_model
from hyenadna.tokenizer import A, T
from tests.builders import random_dna, write_fasta
from tests.toys import tiny_model
from tests.variants.test_scorer import InMemory

Run = Callable[..., Any]
BASES = random_dna(600, 7)
# two bases that an insertion behind position 105 cannot share with its neighbours
INSERTED = next(b for b in "ACGT" if b != BASES[105]) + next(b for b in "ACGT" if b != BASES[104])
WINDOW, GRID, SCORED = 64, 8, 24  # 16 bases downstream, and 8 that a group may span
HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
CALLS = [  # position from 1, REF length, ALT from REF, genotypes of two samples
    (100, 1, "", "0|1", "0|1"),
    (103, 1, "", "1|0", "0|0"),
    (104, 1, "", "0|1:.", "./."),
    (105, 1, INSERTED, ".|1", "1"),  # an insertion
    (200, 1, "", "0|1:7", "0|1"),
    (203, 1, "", "0|1:9", "1/1"),  # another phase set; homozygous
    (204, 1, "", "1/0:9", "."),  # without a phase
    (300, 4, "-", "1|0", "1|1"),  # a deletion of three
    (302, 1, "", "1|0", "0/0"),  # what it deletes
    (400, 1, "", "0|1", "0|0"),
    (408, 1, "", "0|1", "0|0"),  # too far away
    (500, 1, "!", "1|0", "0|0"),  # REF is not the genome's
    (501, 1, "", "1|0", "0|0"),
]


def alleles(position: int, length: int, how: str) -> tuple[str, str]:
    ref = BASES[position - 1 : position - 1 + length]
    other = "ACGT"[("ACGT".index(ref[0]) + 1) % 4]
    if how == "!":
        return other, ref
    return ref, ref[0] if how == "-" else ref + how if how else other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phasing")
    model = tiny_model(context=WINDOW)
    with torch.no_grad():  # an untrained model hardly looks back
        for p in model.parameters():
            p.mul_(1.5)
    save_model(model, path / "model")
    write_fasta(path / "g.fa", [("chr1", BASES)])
    lines = [f"{HEADER}\tFORMAT\tx\ty\n"]
    for position, length, how, *genotypes in CALLS:
        ref, alt = alleles(position, length, how)
        lines.append(
            "\t".join(["1", str(position), ".", ref, alt, ".", ".", ".", "GT:PS", *genotypes]) + "\n"
        )
    (path / "v.vcf").write_text("".join(lines))
    (path / "sites.vcf").write_text(f"{HEADER}\n")
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    line = ["-m", "model", "-f", "g.fa", "-o", "out.vcf"]
    return lambda *words: CliRunner().invoke(app, ["score-variants", *words, *line])


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))


def brute_force(model: HyenaDNA, variants: str) -> tuple[float, list[float]]:
    """By the definition: the score of all variants, and of each alone, in the windows of all."""
    words = [word.split(":") for word in variants.split()]
    edits = [(int(position) - 1, *change.split(">")) for _, position, change in words]
    joint, each = 0.0, [0.0] * len(edits)
    for reverse in (False, True):

        def strand(chosen: list[tuple[int, str, str]]) -> bytes:
            text = BASES
            for start, ref, alt in sorted(chosen, reverse=True):
                text = text[:start] + alt + text[start + len(ref) :]
            return reverse_complement(text.encode()) if reverse else text.encode()  # noqa: B023

        reference, all_of_them = strand([]), strand(edits)
        site = next(i for i, (a, b) in enumerate(zip(reference, all_of_them, strict=False)) if a != b)
        start = (site - WINDOW // 2) // GRID * GRID

        def nats(text: bytes) -> float:
            ids = torch.from_numpy(tokens(text[start : start + WINDOW])).long()  # noqa: B023
            with torch.no_grad():
                log_p = model.plain(ids[None]).logits[0, :, A : T + 1].log_softmax(-1)
            scored = range(site - start, site - start + SCORED)  # noqa: B023
            return sum(float(log_p[i - 1, ids[i] - A]) for i in scored)

        joint += (nats(all_of_them) - nats(reference)) / 2
        for number, edit in enumerate(edits):
            each[number] += (nats(strand([edit])) - nats(reference)) / 2
    return joint, each


def test_haplotypes_equal_brute_force(run: Run, folder: Path) -> None:
    result = run("v.vcf", "--phased", "phased.tsv")
    assert result.exit_code == 0, result.stderr
    assert "wrote 4 haplotypes of several variants" in result.stderr
    assert "1 genotype without a phase left out" in result.stderr
    table = rows(folder / "phased.tsv")
    positions = [[word.split(":")[1] for word in row["variants"].split()] for row in table]
    got = [
        (row["sample"], row["haplotype"], row["phase_set"], *at, row["status"])
        for row, at in zip(table, positions, strict=True)
    ]
    assert (
        sorted(got)
        == [
            ("x", "1", "", "300", "302", "OVERLAP"),
            ("x", "1", "", "500", "501", "REF_MISMATCH"),
            ("x", "2", "", "100", "104", "105", "OK"),
            ("y", "2", "", "200", "203", "OK"),
        ]
        or got
    )
    model = load_model(folder / "model").double()
    genome = InMemory(chr1=BASES)
    options = ScoringOptions(WindowRule(WINDOW, GRID, SCORED))
    scorer = VariantScorer(model, genome, options, batch_tokens=1_000, precision=nullcontext())
    for row in table:
        if row["status"] != "OK":
            assert row["llr"] == row["llr_minus_sum"] == row["llr_each"] == ""
            continue
        joint, each = brute_force(model, row["variants"])
        variants = [Variant("chr1", r.position, r.ref, r.alts[0]) for r in parse_typed(row["variants"])]
        scores = [score.values["llr"] for score in scorer.score(joint_and_each(genome, variants))]
        assert scores == pytest.approx([joint, *each], abs=1e-9)
        # the command computes in single precision
        assert float(row["llr"]) == pytest.approx(joint, abs=2e-3)
        assert list(map(float, row["llr_each"].split(","))) == pytest.approx(each, abs=2e-3)
        assert float(row["llr_sum"]) == pytest.approx(sum(each), abs=2e-3)
        assert float(row["llr_minus_sum"]) == pytest.approx(joint - sum(each), abs=2e-3)
        assert abs(joint - sum(each)) > 1e-2
        assert int(row["start"]) == int(row["variants"].split(":")[1]) - 1
    alone = [line for line in (folder / "out.vcf").read_text().splitlines() if line[0] != "#"]
    assert len(alone) == len(CALLS)


def test_homozygous_alleles_join_the_sets_around_them(run: Run, folder: Path) -> None:
    cases = {  # genotypes at 100, 110 and 120, and the groups: haplotype, phase set and positions
        "ahead": (("1/1:.", "0|1:111", "0|1:111"), [("2", "111", "100 110 120")]),
        "between": (("1|0:101", "1|1:.", "1|0:101"), [("1", "101", "100 110 120")]),
        "two_sets": (("0|1:7", "1/1:.", "0|1:9"), [("2", "7", "100 110"), ("2", "9", "110 120")]),
        "no_name": (("1/1:.", "0|1:111", "0|1:."), [("2", "", "100 120"), ("2", "111", "100 110")]),
        "alone": (("1/1:.", "1|1:.", "0|1:5"), [("1", "", "100 110"), ("2", "5", "100 110 120")]),
    }
    lines = ["\t".join([HEADER, "FORMAT", *cases])]
    for number, position in enumerate((100, 110, 120)):
        ref, alt = alleles(position, 1, "")
        genotypes = [case[0][number] for case in cases.values()]
        lines.append("\t".join(["1", str(position), ".", ref, alt, ".", ".", ".", "GT:PS", *genotypes]))
    (folder / "h.vcf").write_text("\n".join(lines) + "\n")
    result = run("h.vcf", "--phased", "h.tsv", "--phase-span", "24", "--downstream", "4")
    assert result.exit_code == 0, result.stderr
    for sample, (_, expected) in cases.items():
        groups = [
            (row["haplotype"], row["phase_set"], " ".join(v.split(":")[1] for v in row["variants"].split()))
            for row in rows(folder / "h.tsv")
            if row["sample"] == sample
        ]
        assert sorted(groups) == expected, sample


def test_typed_variants_are_one_haplotype(run: Run, folder: Path) -> None:
    words = [f"1:{p}:{'>'.join(alleles(p, n, how))}" for p, n, how, *_ in (CALLS[0], CALLS[2], CALLS[3])]
    assert run("v.vcf", "--phased", "phased.tsv").exit_code == 0
    expected = next(row for row in rows(folder / "phased.tsv") if row["n_variants"] == "3")
    assert run(" ".join(words), "--phased", "typed.tsv").exit_code == 0
    (row,) = rows(folder / "typed.tsv")
    names = ("variants", "status", "start", "end")
    assert [row[name] for name in names] == [expected[name] for name in names]
    # other variants shared the batches of the VCF, and the last digit is the processor's
    for name in ("llr", "llr_sum", "llr_minus_sum", "llr_each"):
        numbers, wanted = ([float(x) for x in re.split("[ ,;]", each[name])] for each in (row, expected))
        assert numbers == pytest.approx(wanted, abs=1e-5)


def test_spellings_of_a_haplotype_get_one_score(run: Run, folder: Path) -> None:
    write_fasta(folder / "repeat.fa", [("chr1", BASES[:100] + "CACACACA" + BASES[100:])])
    spelled = ["chr1:101:CAC>C chr1:120:{}>{}", "chr1:105:CACA>CA chr1:120:{}>{}"]
    ref = BASES[111]
    results = []
    for number, text in enumerate(spelled):
        typed = text.format(ref, "A" if ref != "A" else "C")
        flags = ["-f", "repeat.fa", "--phased", f"{number}.tsv", "--phase-span", "24", "--downstream", "4"]
        result = run(typed, *flags)
        assert result.exit_code == 0, result.stderr
        results += [row["llr"] for row in rows(folder / f"{number}.tsv")]
    assert len(results) == 2
    assert results[0] == results[1]


def test_windows_leave_room_for_a_group() -> None:
    assert phased_rule(WindowRule(8192, 3584, 512), None) == (WindowRule(8192, 3072, 1024), 512)
    assert phased_rule(WindowRule(64, 32), None) == (WindowRule(64, 24), 8)
    with pytest.raises(UsageError, match="exceed half a window"):
        phased_rule(WindowRule(64, 1, 16), 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sites.vcf", "--phased", "x.tsv"], "sites.vcf has no genotypes"),
        (["chr1:5:A>C,G", "--phased", "x.tsv"], "a haplotype has one ALT of each variant"),
        (["v.vcf", "--phased", "x.fa"], "the suffix names no table type"),
        (["v.vcf", "--phase-span", "9"], "add --phased TABLE"),
        (["v.vcf", "--phased", "x.tsv", "--shard", "1/2"], "needs every allele in one process"),
        (["--all-snvs", "-r", "chr1:1-9", "--phased", "x.tsv"], "is on no haplotype"),
        (["v.vcf", "--phased", "v.vcf"], "the suffix names no table type"),
    ],
)
def test_what_has_no_haplotypes_is_refused(run: Run, folder: Path, words: list[str], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (folder / "x.tsv").exists()
