"""`hyena score-variants` as it is typed: what goes in comes out, with scores."""

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.variants import command
from hyenacli.variants.scorer import VariantScorer
from hyenadna import save_model
from tests import warm
from tests.builders import write_circle, write_fasta
from tests.toys import tiny_model

Run = Callable[[str], Any]
HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
BASES = "".join(random.Random(5).choices("ACGT", k=600))


def record(contig: str, position: int, ref: str, alt: str, info: str = ".") -> str:
    return f"{contig}\t{position}\t.\t{ref}\t{alt}\t.\t.\t{info}\n"


def other(base: str) -> str:
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def snv(contig: str, position: int, info: str = ".") -> str:
    ref = BASES[position - 1]
    return record(contig, position, ref, other(ref), info)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a genome, a model and 90 variants of all kinds."""
    path = tmp_path_factory.mktemp("variants")
    save_model(tiny_model(context=64), path / "model")
    write_fasta(
        path / "g.fa",
        [
            ("1", BASES),
            ("MT", BASES[100:300]),
            ("gap", "N" * 200 + BASES[:50]),
            ("island", "N" * 100 + "ACGT" + "N" * 100),
            ("short", "ACGTA"),
        ],
    )
    write_fasta(path / "soft.fa", [("1", BASES.lower()), ("MT", BASES[100:300].replace("T", "u"))])
    draw, lines = random.Random(1), []
    for position in sorted(draw.sample(range(1, 590), 80)):
        ref = BASES[position - 1 : position - 1 + draw.choice([1, 1, 1, 2, 6])]
        alts = [other(ref[0]) + ref[1:], ref + "ACG", ref[0] + "TT"]
        lines.append(record("chr1", position, ref, ",".join(alts[: draw.choice([1, 1, 2, 3])]), "DP=3"))
    lines += [record("chrM", 1 + k, BASES[100 + k], other(BASES[100 + k])) for k in range(10)]
    (path / "v.vcf").write_text(HEADER + "".join(lines))
    return path


@pytest.fixture
def hyena(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    for left in folder.glob("out*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return lambda line: CliRunner().invoke(app, line.split())


def only_guesses(stderr: str) -> bool:
    """Whether nothing is said but that the model, which is not trained, is worse than guessing."""
    return all("worse than guessing" in line for line in stderr.splitlines())


def scored(hyena: Run, lines: str, flags: str = "", fasta: str = "g.fa") -> list[dict[str, list[str]]]:
    """The INFO of every record, by ID."""
    Path("in.vcf").write_text(HEADER + lines)
    result = hyena(f"score-variants in.vcf -m model -f {fasta} --window 32 -q -o out.vcf {flags}")
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in Path("out.vcf").read_text().splitlines() if line[0] != "#"]
    items = [[item.partition("=") for item in row[7].split(";")] for row in rows]
    return [{key: value.split(",") for key, _, value in item} for item in items]


def test_lines_pass_through_and_gain_info(hyena: Run) -> None:
    result = hyena("score-variants v.vcf -m model -f g.fa -o out.vcf --score llr,site,cosine,l2")
    assert result.exit_code == 0, result.output
    assert "v.vcf: matched 2/2 contigs" in result.stderr
    assert "alleles of 90 records" in result.stderr
    before, after = (Path(name).read_text().splitlines() for name in ("v.vcf", "out.vcf"))
    lines = [line for line in after if line[0] != "#"]
    for old, new in zip([line for line in before if line[0] != "#"], lines, strict=True):
        assert new.startswith(old.removesuffix("."))
        assert new.count("HYENA_") == 5
    header = [line.partition("=")[0] for line in after if line.startswith("##hyena")]
    assert header == ["##hyena_version", "##hyena_command", "##hyena_model"]
    with pysam.VariantFile("out.vcf") as file:
        for row in file:
            assert len(row.info["HYENA_LLR"]) == len(row.alts or ()) == len(row.info["HYENA_STATUS"])


def test_the_site_score_is_that_of_the_official_model(hyena: Run, shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "tiny_1k_d128"
    ids = load_file(golden / "inputs.safetensors")["len1000"][0]
    logits = load_file(golden / "expected_f64.safetensors")["len1000/logits"][0]
    bases = "".join("ACGTN"[i - 7] for i in ids)
    write_fasta(tmp_path / "g.fa", [("c", bases)])
    sites = [p for p in range(500, 1000, 23) if bases[p] != "N"][:20]
    (tmp_path / "in.vcf").write_text(
        HEADER + "".join(record("c", p + 1, bases[p], "ACGT".replace(bases[p], "")[0]) for p in sites)
    )
    result = hyena(
        f"score-variants {tmp_path}/in.vcf -m {golden}/weights.ckpt -f {tmp_path}/g.fa -o {tmp_path}/out.tsv "
        "--window 1000 --grid 500 --rc none --score site"
    )
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert len(rows) == 21
    for row, p in zip(rows[1:], sites, strict=True):
        alt, ref = (logits[p - 1, 7 + "ACGT".index(base)] for base in (row[4], row[3]))
        assert float(row[5]) == pytest.approx(alt - ref, abs=1e-4)


def test_every_kind_of_allele_is_kept_and_explained(hyena: Run) -> None:
    ref, wrong = BASES[99], other(BASES[99])
    third, fourth = (b for b in "ACGT" if b not in (ref, wrong))
    found = scored(
        hyena,
        record("1", 100, ref, f"{third},*,<DEL>,{fourth}")
        + record("1", 100, ref, ".", "X=1")
        + record("1", 100, ref, "<*>")
        + record("1", 100, ref, f"{ref}]1:5]")
        + record("1", 100, ref, "R")
        + record("1", 100, wrong, third)
        + record("1", 100, ref, ref + "A" * 9)
        + record("gap", 100, "N", "A")
        + record("1", 100, "N", third)
        + record("island", 102, "C", "A")
        + record("chr9", 100, ref, third)
        + record("1", 2, BASES[1], other(BASES[1]))
        + record("1", 999, "A", "C")
        + record("1", 100, ref, ref),
    )
    assert [info.get("HYENA_STATUS") for info in found] == [
        ["OK", "SYMBOLIC", "SYMBOLIC", "OK"],
        None,
        *(["SYMBOLIC"], ["SYMBOLIC"], ["N_ALLELE"], ["REF_MISMATCH"], ["TOO_LONG"]),
        *(["N_ALLELE"], ["N_ALLELE"], ["N_WINDOW"]),
        *(["NO_CONTIG"], ["EDGE"], ["REF_MISMATCH"], ["OK"]),
    ]
    assert [value == "." for value in found[0]["HYENA_LLR"]] == [False, True, True, False]
    assert found[0]["HYENA_LLR"][0] != found[0]["HYENA_LLR"][3]
    assert found[1] == {"X": ["1"]}
    assert found[-1]["HYENA_LLR"] == ["0"]
    for info in found[2:]:
        assert (info["HYENA_LLR"] == ["."]) == (info["HYENA_STATUS"] not in (["OK"], ["EDGE"]))


def test_spellings_of_a_variant_and_of_its_contig_give_one_score(hyena: Run) -> None:
    at = next(i for i in range(100, 500) if BASES[i] == BASES[i + 1] != BASES[i - 1])
    two, before = BASES[at : at + 2], BASES[at - 1]
    found = scored(
        hyena,
        record("1", at, before + two, before + two[0])
        + record("1", at + 1, two, two[0])
        + record("1", at, before + two + BASES[at + 2], before + two[0] + BASES[at + 2])
        + record("1", at + 1, two.lower(), two[0].lower()),
    )
    found += scored(hyena, record("chr1", at, before + two, before + two[0]))
    scores = [float(info["HYENA_LLR"][0]) for info in found]
    assert scores == pytest.approx([scores[0]] * 5, abs=1e-5)
    assert found[0]["HYENA_STATUS"] == ["OK"]


def test_lower_case_and_rna_genomes_are_the_same_genome(hyena: Run) -> None:
    lines = "".join(snv("1", position) for position in range(50, 500, 60))
    assert scored(hyena, lines) == scored(hyena, lines, fasta="soft.fa")


@pytest.mark.parametrize("flags", ["--check-ref w", "--check-ref x", "--check-ref e"])
def test_a_wrong_ref(hyena: Run, flags: str) -> None:
    wrong = record("1", 60, other(BASES[59]), BASES[59])
    Path("in.vcf").write_text(HEADER + snv("1", 50) + wrong + snv("1", 70))
    result = hyena(f"score-variants in.vcf -m model -f g.fa -o out.tsv {flags}")
    if flags[-1] == "e":
        assert result.exit_code == 1
        assert "in.vcf, line 4: REF of 1:60 differs from g.fa; use the genome" in result.stderr
        assert not Path("out.tsv").exists()
        return
    rows = Path("out.tsv").read_text().splitlines()[1:]
    assert len(rows) == (3 if flags[-1] == "w" else 2)
    assert ("REF_MISMATCH" in rows[1]) == (flags[-1] == "w")
    assert (
        "1 of 3 records of contig 1 (33.3 %): is this the genome build of in.vcf?"
        in result.stderr.replace("\n", " ")
    )


def test_one_wrong_ref_in_many_is_counted_quietly(hyena: Run) -> None:
    wrong = record("1", 60, other(BASES[59]), BASES[59])
    Path("in.vcf").write_text(HEADER + "".join(snv("1", p) for p in range(100, 300)) + wrong)
    result = hyena("score-variants in.vcf -m model -f g.fa --window 16 --downstream 1 -o out.tsv")
    assert "build" not in result.stderr
    assert "1 REF_MISMATCH of 201 records" in result.stderr


def test_a_wrong_build_of_one_contig_is_named(hyena: Run) -> None:
    mito = BASES[100:300]
    wrong = "".join(record("MT", p, other(mito[p - 1]), mito[p - 1]) for p in range(20, 36))
    right = "".join(record("MT", p, mito[p - 1], other(mito[p - 1])) for p in range(36, 40))
    lines = "".join(snv("1", p) for p in range(30, 560))
    Path("in.vcf").write_text(HEADER + lines + wrong + right)
    line = "score-variants in.vcf -m model -f g.fa -q -o out.tsv --window 16 --downstream 1 --score site"
    warnings = hyena(line).stderr.replace("\n", " ")
    assert warnings.count("REF differs from") == 1
    assert "16 of 20 records of contig MT (80.0 %)" in warnings


def test_a_contig_of_another_length_is_another_sequence(hyena: Run) -> None:
    header = HEADER.replace("#CHROM", "##contig=<ID=1,length=600>\n##contig=<ID=chrM,length=198>\n#CHROM")
    Path("in.vcf").write_text(header + snv("1", 50) + record("chrM", 5, BASES[104], other(BASES[104])))
    line = "score-variants in.vcf -m model -f g.fa -o out.tsv"
    result = hyena(line)
    said = result.stderr.replace("\n", " ")
    assert result.exit_code == 0, said
    assert "1 of 2 contigs are not in g.fa: chrM (1 record)" in said
    assert "chrM of 198 bases and MT of 200" in said
    assert [row.split("\t")[-1] for row in Path("out.tsv").read_text().splitlines()[1:]] == [
        "OK",
        "NO_CONTIG",
    ]
    Path("aliases").write_text("chrM MT\n")
    assert hyena(f"{line} --contig-aliases aliases").exit_code == 0
    assert "NO_CONTIG" not in Path("out.tsv").read_text()


def test_contigs_are_judged_before_a_model_is_loaded(hyena: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run", partial(command.run, block_records=4))
    monkeypatch.setattr(command, "load_model", lambda name: pytest.fail("a model was loaded"))
    write_fasta(Path("two.fa"), [("1", BASES), ("chrM", BASES[:100]), ("chrMT", BASES[:90])])
    many = "".join(snv("1", p) for p in range(10, 500, 10))
    line = "score-variants in.vcf -m model -f two.fa -o out.tsv"
    for last, what in (
        (record("MT", 5, BASES[4], other(BASES[4])), "contig 'MT' could be any of chrM, chrMT in two.fa"),
        (snv("chr1", 510), "'1' and 'chr1' would both be '1' of two.fa"),
        ("1\t520\t.\tA\n", "in.vcf, line 52: 4 columns where VCF has at least 8"),
        (record("1", 520, "A", "C,"), "in.vcf, line 52: ALT is empty"),
    ):
        Path("in.vcf").write_text(HEADER + many + last)
        result = hyena(line)
        assert (result.exit_code, Path("out.tsv").exists()) == (1, False)
        assert what in result.stderr.replace("\n", " ")


def test_contigs_of_a_stream_are_judged_one_by_one(hyena: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run", partial(command.run, block_records=4))
    write_fasta(Path("two.fa"), [("1", BASES), ("chrM", BASES[:100]), ("chrMT", BASES[:90])])
    mito = record("MT", 5, BASES[4], other(BASES[4]))
    text = HEADER + "".join(snv("1", p) for p in range(100, 108)) + snv("chr1", 110) + mito + snv("7", 5)
    line = "score-variants - -m model -f two.fa -q -O tsv"
    result = CliRunner().invoke(app, line.split(), input=text)
    assert result.exit_code == 0, result.stderr
    statuses = [row.split("\t")[-1] for row in result.stdout.splitlines()[1:]]
    assert statuses == ["OK"] * 8 + ["NO_CONTIG"] * 3
    warnings = result.stderr.replace("\n", " ")
    assert warnings.count("'1' and 'chr1' would both be '1' of two.fa: its records are not scored") == 1
    assert warnings.count("contig 'MT' could be any of chrM, chrMT in two.fa") == 1


def test_a_name_that_was_not_reached_may_change_before_resuming(
    hyena: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run", partial(command.run, block_records=4))
    wrong = record("1", 60, other(BASES[59]), BASES[59])
    scored_lines = "".join(snv("1", p) for p in range(100, 111))
    Path("in.vcf").write_text(HEADER + scored_lines + wrong + record("NC_9", 5, BASES[104], "N"))
    line = "score-variants in.vcf -m model -f g.fa -o out.tsv"
    assert "keeps what was scored" in hyena(f"{line} --check-ref e").stderr.replace("\n", " ")
    Path("aliases").write_text("NC_9 MT\n")
    kept = Path("out.tsv.unfinished").read_bytes()
    result = hyena(f"{line} --contig-aliases aliases --resume")
    assert result.exit_code == 0, result.stderr
    assert "NO_CONTIG" not in Path("out.tsv").read_text()
    # a name that was used for scores already may not
    Path("out.tsv.unfinished").write_bytes(kept)
    Path("aliases").write_text("1 MT\n")
    result = hyena(f"{line} --contig-aliases aliases --resume")
    assert "or with other names of contigs" in result.stderr.replace("\n", " ")


def test_circles_have_no_edges(hyena: Run) -> None:
    mito = BASES[100:300]
    ends = [1, 2, 30, 170, 199, 200]
    lines = "".join(record("chrM", p, mito[p - 1], other(mito[p - 1])) for p in ends)
    across = record("chrM", 199, mito[-2:] + mito[:2], mito[-2])
    statuses = [info["HYENA_STATUS"] for info in scored(hyena, lines + across)]
    assert statuses == [["EDGE"]] * 2 + [["OK"]] * 2 + [["EDGE"]] * 2 + [["REF_MISMATCH"]]
    circle = scored(hyena, lines + across, "--circular chrM")
    assert [info["HYENA_STATUS"] for info in circle] == [["OK"]] * 7
    write_circle(Path("circle.gb"), "MT", mito)
    assert scored(hyena, lines + across, "", "circle.gb") == circle, "the file says that it is a circle"
    # the same circle, begun elsewhere by a multiple of the grid
    write_fasta(Path("rotated.fa"), [("1", BASES), ("MT", mito[80:] + mito[:80])])
    rotated = [record("chrM", (p - 81) % 200 + 1, mito[p - 1], other(mito[p - 1])) for p in ends]
    rotated.append(record("chrM", 119, mito[-2:] + mito[:2], mito[-2]))
    again = scored(hyena, "".join(rotated), "--circular MT", "rotated.fa")
    for old, new in zip(circle, again, strict=True):
        assert float(new["HYENA_LLR"][0]) == pytest.approx(float(old["HYENA_LLR"][0]), abs=1e-5)


def test_every_substitution_of_a_region_across_the_end(hyena: Run) -> None:
    Path("r.bed").write_text("MT\t195\t205\n")
    line = "score-variants r.bed --all-snvs -m model -f g.fa -q -o out.tsv --circular MT --window 32"
    assert hyena(f"{line} --heatmap out-pictures").exit_code == 0
    rows = [row.split("\t") for row in Path("out.tsv").read_text().splitlines()[1:]]
    assert [int(row[1]) for row in rows[::3]] == [196, 197, 198, 199, 200, 1, 2, 3, 4, 5]
    assert {row[-1] for row in rows} == {"OK"}
    assert (BASES[295:300] + BASES[100:105]) in Path("out-pictures/MT_196-205.svg").read_text()


def test_a_table_on_stdin_and_a_table_out(hyena: Run, folder: Path) -> None:
    table = f"chrom\tpos\tref\talt\tgene\n1\t100\t{BASES[99]}\t{other(BASES[99])}\tXYZ\n"
    done = subprocess.run(
        [warm.command(), *["score-variants", "-", "-m", "model", "-f", "g.fa", "-q"]],
        input=table.encode(),
        capture_output=True,
        check=True,
        cwd=folder,
    )
    header, row = done.stdout.decode().splitlines()
    assert header == "chrom\tpos\tref\talt\tgene\tHYENA_LLR\tHYENA_STATUS"
    assert row.split("\t")[4:] == ["XYZ", row.split("\t")[5], "OK"]
    assert only_guesses(done.stderr.decode())


@pytest.mark.parametrize("kind", ["vcf.gz", "bcf", "parquet"])
def test_other_types_hold_the_same(hyena: Run, kind: str) -> None:
    assert hyena("score-variants v.vcf -m model -f g.fa -q -o out.tsv").exit_code == 0
    assert hyena(f"score-variants v.vcf -m model -f g.fa -q -o out.{kind}").exit_code == 0
    expected = [line.split("\t")[5] for line in Path("out.tsv").read_text().splitlines()[1:]]
    if kind == "parquet":
        found = pq.read_table("out.parquet")["HYENA_LLR"].to_pylist()
    else:
        with pysam.VariantFile(f"out.{kind}") as file:
            found = [value for row in file for value in row.info["HYENA_LLR"]]
        assert Path(f"out.{kind}.tbi").exists() == (kind == "vcf.gz")
        assert Path(f"out.{kind}.csi").exists() == (kind == "bcf")
    assert found == pytest.approx([float(text) for text in expected], rel=1e-5)


def test_neither_batches_nor_threads_nor_neighbours_matter(hyena: Run) -> None:
    found = []
    lines = Path("v.vcf").read_text().removeprefix(HEADER).splitlines(keepends=True)
    Path("in.vcf").write_text(HEADER + "".join(lines[:80:7]))
    for flags in ("-b 1 -@ 1", "-b 64 -@ 2", "-b auto"):
        for name in ("v.vcf", "in.vcf"):
            line = f"score-variants {name} -m model -f g.fa -q -o out.tsv --score llr,l2 {flags}"
            assert hyena(line).exit_code == 0
            rows = [row.split("\t") for row in Path("out.tsv").read_text().splitlines()[1:]]
            kept = {tuple(row[:5]): [float(text) for text in row[5:7]] for row in rows}
            found.append({key: kept[key] for key in found[0]} if name == "v.vcf" and found else kept)
    few = found[1]
    for other in found:
        for key, values in few.items():
            assert other[key] == pytest.approx(values, abs=1e-4)


def test_regions_pick_records_under_any_name(hyena: Run) -> None:
    Path("r.bed").write_text("MT\t2\t4\n")
    assert hyena("score-variants v.vcf -m model -f g.fa -q -o out.tsv -r 1:1-100 -R r.bed").exit_code == 0
    found = [line.split("\t")[:2] for line in Path("out.tsv").read_text().splitlines()[1:]]
    assert {contig for contig, _ in found} == {"chr1", "chrM"}
    assert [int(position) for contig, position in found if contig == "chrM"] == [3, 4]
    assert max(int(position) for contig, position in found if contig == "chr1") <= 100


def test_regions_pick_records_of_any_spelling_that_resolves(hyena: Run) -> None:
    Path("aliases").write_text("NC_1 chr1\n")
    for contig in ("Chr1", "NC_1"):
        Path("in.vcf").write_text(HEADER + snv(contig, 50))
        line = "score-variants in.vcf -m model -f g.fa --contig-aliases aliases -q -o out.tsv"
        assert hyena(f"{line} -r 1:1-100").exit_code == 0
        assert Path("out.tsv").read_text().splitlines()[1].startswith(f"{contig}\t50\t")
    result = hyena(f"{line.replace(' -q', '')} -r 1:60-100")
    assert "in.vcf: no record lies in the regions" in result.stderr


def test_a_stream_may_begin_with_a_contig_that_the_genome_lacks(
    hyena: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run", partial(command.run, block_records=4))
    header = HEADER.replace("#CHROM", "##contig=<ID=chr8>\n##contig=<ID=chr1>\n#CHROM", 1)
    text = header + "".join(snv("chr8", position) for position in range(1, 9)) + snv("chr1", 50)
    line = "score-variants - -m model -f g.fa -q -o out.tsv"
    result = CliRunner().invoke(app, line.split(), input=text)
    assert result.exit_code == 0, result.stderr
    rows = [row.split("\t") for row in Path("out.tsv").read_text().splitlines()]
    status = rows[0].index("HYENA_STATUS") if "HYENA_STATUS" in rows[0] else rows[0].index("status")
    assert [row[status] for row in rows[1:]] == ["NO_CONTIG"] * 8 + ["OK"]


def test_pictures_of_regions(hyena: Run) -> None:
    Path("r.bed").write_text("chr1\t100\t130\tpeak\ngap\t195\t205\n")
    line = "score-variants r.bed --all-snvs -m model -f g.fa -o out.tsv --grid 8 --heatmap out-pictures"
    result = hyena(f"{line} --score site")
    assert result.exit_code == 0
    assert "scored 105 alleles of 35 records" in result.stderr
    assert {path.name for path in Path("out-pictures").iterdir()} == {"chr1_101-130.svg", "gap_196-205.svg"}
    picture = Path("out-pictures/chr1_101-130.svg").read_text()
    assert "peak" in picture
    assert "first differing base" in picture
    assert BASES[100:130] in picture.replace("</text>", "")


def test_a_model_that_is_worse_than_guessing_is_remarked_on(hyena: Run) -> None:
    line = "score-variants v.vcf -m model -f g.fa -q -o out.vcf"
    warning = hyena(line).stderr.replace("\n", " ")
    assert re.search(
        r"on the reference of v.vcf, a loss of 1\.\d+ nats per base is worse than guessing", warning
    )
    assert "guessing" not in hyena(f"{line} --score l2").stderr  # which needs no probabilities


@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "bcf", "tsv", "parquet"])
def test_empty_parts_give_empty_outputs(hyena: Run, kind: str) -> None:
    Path("in.vcf").write_text(HEADER)
    Path("r.bed").write_bytes(b"")
    for source in ("in.vcf", "in.vcf --shard 2/3", "r.bed --all-snvs"):
        result = hyena(f"score-variants {source} -m model -f g.fa -o out.{kind}")
        assert result.exit_code == 0, result.stderr
        assert "scored 0 alleles of 0 records" in result.stderr
        assert Path(f"out.{kind}").exists()


def test_no_version_leaves_the_header_bare(hyena: Run) -> None:
    assert hyena("score-variants v.vcf -m model -f g.fa -q -o out.vcf --no-version").exit_code == 0
    assert "##hyena" not in Path("out.vcf").read_text()


def test_every_substitution_of_regions(hyena: Run) -> None:
    Path("r.bed").write_text("chr1\t100\t110\ngap\t195\t205\n")
    assert hyena("score-variants r.bed --all-snvs -m model -f g.fa -q -o out.vcf --window 32").exit_code == 0
    rows = [line.split("\t") for line in Path("out.vcf").read_text().splitlines() if line[0] != "#"]
    assert [row[1] for row in rows] == [*map(str, range(101, 111)), *map(str, range(201, 206))]
    for row in rows[:10]:
        ref = BASES[int(row[1]) - 1]
        assert (row[0], row[3], row[4]) == ("chr1", ref, ",".join(b for b in "ACGT" if b != ref))
    lines = "".join(record("1", int(row[1]), row[3], row[4]) for row in rows[:10])
    for row, info in zip(rows, scored(hyena, lines), strict=False):
        assert row[7] == ";".join(f"{key}={','.join(values)}" for key, values in info.items())
    line = "score-variants -r chr1:101-110 --all-snvs -m model -f g.fa -q -o out2.tsv --window 32"
    assert hyena(line).exit_code == 0
    assert len(Path("out2.tsv").read_text().splitlines()) == 31


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["vcf", "tsv", "vcf.gz"]), st.integers(1, 12), st.randoms())
def test_joined_shards_are_byte_for_byte_the_single_run(
    hyena: Run, kind: str, of: int, rng: random.Random
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "run", partial(command.run, block_records=16))
        line = "score-variants v.vcf -m model -f g.fa -q --score llr,l2"
        names = [f"out{number}.{kind}" for number in range(1, of + 1)]
        for number, name in enumerate(names, 1):
            result = hyena(f"{line} --shard {number}/{of} -o {name}")
            assert result.exit_code == 0
            assert only_guesses(result.output)
        result = hyena(f"{line} -o one.{kind}")
        assert result.exit_code == 0, result.output
        rng.shuffle(names)
        result = hyena(f"merge {' '.join(names)} -o whole.{kind}")
        assert result.exit_code == 0, result.output
        # blocks of .gz are copied, and cut elsewhere than in a single run
        whole, one = (
            gzip.decompress(data) if kind == "vcf.gz" else data
            for data in (Path(f"{name}.{kind}").read_bytes() for name in ("whole", "one"))
        )
        assert whole == one


@pytest.mark.parametrize("kind", ["vcf", "tsv"])
def test_a_shard_that_is_cut_short_is_not_joined(
    hyena: Run, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(command, "run", partial(command.run, block_records=16))
    for number in (1, 2):
        line = f"score-variants v.vcf -m model -f g.fa -q --shard {number}/2 -o out{number}.{kind}"
        assert hyena(line).exit_code == 0
    whole = Path(f"out2.{kind}").read_bytes()
    for less in (whole[: whole.rindex(b"\n", 0, -1) + 1], whole[:-20]):
        Path(f"out2.{kind}").write_bytes(less)
        result = hyena(f"merge out1.{kind} out2.{kind} -o cut.{kind}")
        assert result.exit_code == 1
        assert "cut short" in result.stderr
        assert not Path(f"cut.{kind}").exists()


def test_shards_without_records_that_were_left_out_are_whole(hyena: Run) -> None:
    wrong = record("1", 60, other(BASES[59]), BASES[59])
    Path("in.vcf").write_text(HEADER + snv("1", 50) + wrong + snv("1", 70))
    line = "score-variants in.vcf -m model -f g.fa -q --shard 1/1 -o out1.vcf --check-ref x"
    assert hyena(line).exit_code == 0
    assert hyena("merge out1.vcf -o whole.vcf").exit_code == 0
    shard, whole = (Path(name).read_text().splitlines() for name in ("out1.vcf", "whole.vcf"))
    assert [line for line in shard if not line.startswith("##hyena_shard=")] == whole


def test_shards_of_bcf_and_parquet_hold_the_same(hyena: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run", partial(command.run, block_records=16))
    for kind in ("bcf", "parquet"):
        line = "score-variants v.vcf -m model -f g.fa -q"
        for number in (1, 2, 3):
            assert hyena(f"{line} --shard {number}/3 -o out{number}.{kind}").exit_code == 0
        assert hyena(f"{line} -o one.{kind}").exit_code == 0
        result = hyena(f"merge out3.{kind} out1.{kind} out2.{kind} -o whole.{kind}")
        assert result.exit_code == 0, result.output
        refused = hyena(f"merge out3.{kind} out1.{kind} out2.{kind} -o -")
        assert (refused.exit_code, Path("-").exists()) == (2, False)
    one, whole = pq.read_table("one.parquet"), pq.read_table("whole.parquet")
    assert whole.schema.equals(one.schema, check_metadata=True)
    assert str(whole.to_pylist()) == str(one.to_pylist())
    texts = []
    for name in ("one.bcf", "whole.bcf"):
        with pysam.VariantFile(name) as file:
            texts.append(str(file.header) + "".join(map(str, file)))
    assert texts[0] == texts[1]


def score_slowly(folder: Path, line: str, stderr: Path) -> None:
    """Run a command with small blocks in a process of its own."""
    os.chdir(folder)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    command.run = partial(command.run, block_records=4)  # type: ignore[assignment]
    score = VariantScorer.score

    def slow(self: VariantScorer, alleles: Any) -> Iterator[Any]:
        time.sleep(0.05)
        yield from score(self, alleles)

    VariantScorer.score = slow  # type: ignore[method-assign]
    app(line.split())


def test_a_killed_run_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    out, stderr = tmp_path / "out", tmp_path / "stderr"
    out.mkdir()

    def start() -> BaseProcess:
        line = f"score-variants v.vcf -m model -f g.fa -q --resume -o {out}/out.vcf"
        return warm.forked(score_slowly, folder, line, stderr)

    journal = out / "out.vcf.unfinished"

    def lines() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    kept = 0
    for how in (signal.SIGTERM, signal.SIGKILL):
        process = start()
        while process.is_alive() and lines() < kept + 3:
            time.sleep(0.01)
        os.kill(process.pid or 0, how)
        process.join()
        if how == signal.SIGTERM:
            assert process.exitcode == 143
            assert [path.name for path in out.iterdir()] == [journal.name]
        assert not (out / "out.vcf").exists()
        assert lines() >= kept + 3
        kept = lines()
    journal.write_bytes(journal.read_bytes() + b'{"records_sha256": "cut sh')
    start().join()
    assert only_guesses(stderr.read_text())
    resumed = (out / "out.vcf").read_bytes()
    assert sorted(path.name for path in out.iterdir() if not path.name.endswith(".tmp")) == ["out.vcf"]
    start().join()
    assert (out / "out.vcf").read_bytes() == resumed


def test_what_an_interrupted_run_has_left_is_neither_lost_nor_mixed_up(hyena: Run, folder: Path) -> None:
    line = "score-variants v.vcf -m model -f g.fa -q -o out.vcf"
    assert hyena(f"{line} --resume").exit_code == 0
    wrong = Path("v.vcf").read_text() + record("chr1", 60, other(BASES[59]), BASES[59])
    Path("in.vcf").write_text(wrong)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "run", partial(command.run, block_records=16))
        failing = "score-variants in.vcf -m model -f g.fa -o out2.vcf --check-ref e"
        assert "out2.vcf.unfinished keeps what was scored" in hyena(failing).stderr
        for flags, said in [
            ("", "holds the scores of an interrupted run; add --resume to go on with it, or remove it"),
            ("--resume --downstream 3", "was left by a run with another hyena_command (hyena score-variants"),
        ]:
            result = hyena(f"{failing} {flags}")
            assert result.exit_code == 1
            assert said in result.stderr
        shutil.copy("v.vcf", "in.vcf")
        changed = HEADER + snv("chr1", 50) + Path("v.vcf").read_text().removeprefix(HEADER)
        Path("in.vcf").write_text(changed)
        result = hyena(f"{failing} --resume")
        assert "was made from other records than this input's" in result.stderr
        Path("in.vcf").write_text(wrong)
        before = (folder / "g.fa").stat()
        os.utime("g.fa")
        assert "was left by a run with another genome" in hyena(f"{failing} --resume").stderr
        os.utime("g.fa", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert not Path("out2.vcf").exists()
        # the error's own remedy goes on with what was scored
        for line in ("in.vcf -o out2.vcf --check-ref w --resume", "in.vcf -o one.vcf"):
            assert hyena(f"score-variants {line} -m model -f g.fa -q --no-version").exit_code == 0
    assert Path("out2.vcf").read_bytes() == Path("one.vcf").read_bytes()


def test_a_reader_that_leaves_early_ends_it_silently(folder: Path) -> None:
    score = f"{warm.command()} score-variants big.vcf -m model -f g.fa -q"
    big = HEADER + "".join(Path(folder, "v.vcf").read_text().removeprefix(HEADER) for _ in range(60))
    (folder / "big.vcf").write_text(big)
    done = subprocess.run(
        ["bash", "-c", f"{score} | head -1; echo ${{PIPESTATUS[0]}}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["##fileformat=VCFv4.2", "141"]
    assert only_guesses(done.stderr)


BAD = [
    ("v.vcf -f g.fa -m model --score llr,sites", 2, "--score: unknown score 'sites'; did you mean 'site'?"),
    ("v.vcf -f g.fa -m model --rc both", 2, "Invalid value for '--rc': 'both' is not one of 'mean', 'none'"),
    ("v.vcf -f g.fa -m model --check-ref z", 2, "'z' is not one of 'w', 'x', 'e'"),
    ("v.vcf -f g.fa -m model --window 99", 2, "--window: the model takes at most 64 bases, not 99"),
    ("v.vcf -f g.fa -m model --window 32 --grid 17", 2, "--grid: a grid of 17 leaves sites outside windows"),
    ("v.vcf -f g.fa -m model -o x.txt", 2, "x.txt: the suffix names no type of variants"),
    ("v.vcf -f g.fa -m model -o no/x.vcf", 1, "no/x.vcf: cannot be written: no such file or directory"),
    ("-f g.fa -m model", 2, "nothing to score; name a VCF, or regions with --all-snvs"),
    ("--all-snvs -f g.fa -m model", 2, "--all-snvs needs regions; give a BED as INPUT, or -r"),
    ("v.vcf --all-snvs -f g.fa -m model", 2, "v.vcf: is not a BED; --all-snvs takes regions"),
    ("r.bed -r 1 --all-snvs -f g.fa -m model", 2, "give a BED as INPUT, or -r, not both"),
    ("v.vcf -f g.fa -m model --report -", 2, "-: a report is an HTML page; give it the suffix .html"),
    ("v.vcf -f g.fa -m model --phased -", 2, "-: two outputs cannot share stdout; name a file for one"),
    ("v.vcf -f g.fa -m model -o x.vcf --phased - --write-calibration -", 2, "cannot share stdout"),
    ("v.vcf -f g.fa -m model -o v.vcf", 2, "v.vcf: is an input of this very command; write to another file"),
    ("v.vcf -f g.fa -m model -o model", 1, "model: cannot be written: is a directory"),
    (
        "v.vcf -f g.fa -m model --dtype half",
        2,
        "'--dtype': 'half' is not one of 'float32', 'bfloat16'",
    ),
    ("v.vcf -f g.fa -m model --heatmap x", 2, "--heatmap: a picture needs every substitution"),
    ("v.vcf -f g.fa -m model --resume", 2, "--resume: stdout keeps no scores; name a file with -o"),
    ("v.vcf -f g.fa -m model --shard 3/2", 2, "--shard: unknown shard '3/2'"),
    ("v.vcf -f g.fa -m model --circular 1,MTT", 2, "--circular: no contig 'MTT' in g.fa; did you mean 'MT'?"),
    ("v.vcf -f g.fa -m model --circular short", 2, "the circle short has 5 bases, fewer than a window of 64"),
    ("v.vcf -f other.fa -m model", 1, "no contig of this input is in other.fa"),
    ("v.vcf -f g.fa -m model --contig-style exact", 1, "no contig of this input is in g.fa"),
    ("v.vcf -f g.fa -m model -r 7:1-5", 1, "7:1-5: no contig '7'; the contigs are"),
    ("g.fa -f g.fa -m model", 1, "g.fa: holds FASTA, no variants; give VCF, BCF, or a table"),
    ("none.vcf -f g.fa -m model", 1, "none.vcf: "),
    ("v.vcf -f none.fa -m model", 1, "none.fa: "),
    ("v.vcf -f g.fa -m none", 1, "none: no such file, directory or model name"),
]


@pytest.mark.parametrize(("line", "code", "said"), BAD, ids=[line for line, _, _ in BAD])
def test_bad_input_is_one_line(hyena: Run, line: str, code: int, said: str) -> None:
    write_fasta(Path("other.fa"), [("x", "ACGT")])
    result = hyena(f"score-variants {line}")
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.splitlines()[-1].startswith("hyena: error: ")
    assert result.stdout == ""


def test_torchrun_writes_one_file(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.vcf"
    line = "score-variants v.vcf -m model -f g.fa -q -o"
    assert warm.run_job(line, target, ranks=1, folder=folder).exit_codes == [0]
    expected = target.read_bytes()
    target.unlink()
    job = warm.run_job(line, target, folder=folder)
    assert job.exit_codes == [0, 0], job.stderr
    assert target.read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out.vcf"]


def test_events_say_what_was_done(hyena: Run) -> None:
    assert hyena("score-variants v.vcf -m model -f g.fa -q -o out.tsv --log-json out.jsonl").exit_code == 0
    events = map(json.loads, Path("out.jsonl").read_text().splitlines())
    (event,) = [event for event in events if event["event"] == "score-variants"]
    assert event["records"] == 90
    assert sum(event["statuses"].values()) >= 90
    assert event["ref_differing"] == 0


def test_variants_may_be_typed(hyena: Run, folder: Path) -> None:
    typed = f"chr1:50:{BASES[49]}>{other(BASES[49])} chr1:1,0:A>G MT:9:{BASES[108]}{BASES[109]}>{BASES[108]}"
    words = [
        "score-variants",
        typed.replace("1,0", "9,999"),
        *["-m", "model", "-f", "g.fa", "-q", "-o", "out.tsv"],
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    rows = [line.split("\t") for line in Path("out.tsv").read_text().splitlines() if line[0] != "#"]
    assert [row[-1] for row in rows[1:] or rows][-3:] == ["OK", "REF_MISMATCH", "EDGE"]
    lines = snv("chr1", 50) + record("MT", 9, BASES[108:110], BASES[108])
    alone = scored(hyena, lines, "--window 64")
    assert [row[-2] for row in rows[-3:]][::2] == [item["HYENA_LLR"][0] for item in alone]
    result = CliRunner().invoke(app, [*words, "-r", "1:1-9"])
    assert result.exit_code == 2
    assert "-r and -R pick records of a file" in result.stderr


def test_quantiles_are_shares_of_other_variants_in_any_shard(
    hyena: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run", partial(command.run, block_records=32))
    line = "score-variants v.vcf -m model -f g.fa -q --score llr,jsd"
    assert hyena(f"{line} -o out.tsv --quantile v.vcf --report out.html").exit_code == 0
    table = table_rows("out.tsv")
    scores = [float(row["HYENA_LLR"]) for row in table if row["HYENA_LLR"] != "."]
    for row in table:
        if row["HYENA_LLR"] != ".":
            value = float(row["HYENA_LLR"])
            share = sum((s < value) + (s == value) / 2 for s in scores) / len(scores)
            assert float(row["HYENA_LLR_QUANTILE"]) == pytest.approx(share, abs=1e-6)
    page = Path("out.html").read_text()
    assert "<svg" in page
    assert f"{min(scores):.4g}" in page
    assert "insertion" in page
    line += " --quantile 40 --seed 3"
    assert hyena(f"{line} -o out.tsv").exit_code == 0
    for i in (1, 2):
        assert hyena(f"{line} --shard {i}/2 -o out{i}.tsv").exit_code == 0
    assert hyena("merge out1.tsv out2.tsv -o out3.tsv").exit_code == 0
    assert Path("out3.tsv").read_bytes() == Path("out.tsv").read_bytes()
    assert hyena(f"{line} -o out.tsv --quantile absent.vcf").exit_code == 2
    assert hyena(f"{line} -o out.tsv --report out.html --shard 1/2").exit_code == 2


def table_rows(name: str) -> list[dict[str, str]]:
    header, *rows = (line.split("\t") for line in Path(name).read_text().splitlines() if line[:2] != "##")
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_a_run_ends_with_what_its_scores_look_like(hyena: Run) -> None:
    result = hyena("score-variants v.vcf -m model -f g.fa -o out.tsv")
    assert re.search(r"llr: median \S+, 90 % from \S+ to \S+\nlowest: chr", result.stderr)
    assert "the model finds ALT less likely than REF" in result.stderr
