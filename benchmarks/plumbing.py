"""Variants read, annotated and written beside `bcftools view`: `python -m benchmarks.plumbing`.

What scoring adds to a file costs this much besides the model. Rounds are interleaved.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pysam

from benchmarks.results import table, write_section
from hyenacli.readers.variants import open_variants
from hyenacli.writers.variants import open_annotated
from hyenacli.writers.vcf import InfoField

RECORDS = 1_000_000
ROUNDS = 2
FIELDS = (InfoField("HYENA_LLR", "A", "Float", "x"), InfoField("HYENA_STATUS", "A", "String", "y"))
EXPLANATION = """\
Least processor time, of a VCF of one contig, 45 bytes per line, one line in ten with two ALT alleles; other
processes kept the machine busy. *ours* reads the file once to check and count it, then reads it again, adds a
number and a status per ALT allele (drawn beforehand), and writes, .vcf.gz and .bcf with their index.
`bcftools view` reads and writes, without index and without adding anything. *pysam* is a bare loop over
`VariantFile` that adds the same two fields to each record: what a program takes that does this record by
record in Python. All use one thread."""
TYPES = {"vcf": "v", "vcf.gz": "z", "bcf": "b"}


def write_input(path: Path) -> None:
    """Write sorted records of one contig, one in ten with two ALT alleles."""
    rng = random.Random(0)
    position = 0
    with path.open("w") as out:
        out.write("##fileformat=VCFv4.2\n##contig=<ID=chr1,length=248956422>\n")
        out.write('##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n')
        out.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for number in range(RECORDS):
            position += rng.randrange(1, 400)
            alt, frequency = ("C,GT", "0.5,0.25") if number % 10 == 0 else ("T", "0.125")
            out.write(f"chr1\t{position}\trs{number}\tA\t{alt}\t50\tPASS\tAF={frequency}\n")


def draw_scores() -> list[list[list[float]]]:
    """Numbers of many digits, in lists of 0, 1 and 2."""
    rng = random.Random(1)
    return [[[rng.gauss(0, 2) for _ in range(count)] for _ in range(9973)] for count in range(3)]


def annotate(scores: list[list[list[float]]], source: Path, target: Path) -> None:
    """Survey, read, annotate with numbers that are there already, write."""
    with open_variants(source) as variants:
        variants.survey()
    with (
        open_variants(source) as variants,
        open_annotated(target, None, variants.header, FIELDS, ["##hyena_version=1"]) as out,
    ):
        for record in variants:
            count = len(record.alts)
            own = scores[count][record.line % 9973]
            out.write(record, {"HYENA_LLR": own, "HYENA_STATUS": ["OK"] * count})


def loop(scores: list[list[list[float]]], source: Path, target: Path) -> None:
    """Do the same without a survey, by pysam's records."""
    mode = TYPES[target.name.partition(".")[2]].replace("v", "")
    with pysam.VariantFile(str(source)) as variants:
        for field in FIELDS:
            variants.header.add_line(field.declaration())
        with pysam.VariantFile(str(target), f"w{mode}", header=variants.header) as out:
            for number, record in enumerate(variants):
                count = len(record.alts or ())
                record.info["HYENA_LLR"] = scores[count][number % 9973]
                record.info["HYENA_STATUS"] = ["OK"] * count
                out.write(record)


def view(source: Path, target: Path) -> None:
    """The same without annotation, by bcftools."""
    letter = TYPES[target.name.partition(".")[2]]
    subprocess.run(["bcftools", "view", f"-O{letter}", "-o", target, source], check=True)


def seconds(work: Callable[[Path, Path], None], source: Path, target: Path) -> float:
    """Processor time, of this process and those that it starts."""
    start = sum(os.times()[:4])
    work(source, target)
    return sum(os.times()[:4]) - start


def row(kind: str, ours: list[float], theirs: list[float], bare: list[float]) -> list[str]:
    """A line of the table: least times and their ratios."""
    own, other, python = min(ours), min(theirs), min(bare)
    ratios = f"{own / other:.1f}", f"{python / other:.1f}"
    return [f".{kind}", f"{own:.1f}", f"{other:.1f}", f"{python:.1f}", *ratios]


def main() -> None:
    """Measure, print and write RESULTS.md."""
    if shutil.which("bcftools") is None:
        sys.exit("bcftools is not installed")
    times: dict[str, list[list[float]]] = {kind: [[], [], []] for kind in TYPES}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.vcf")
        write_input(source)
        scores = draw_scores()
        ways: list[Callable[[Path, Path], None]] = [partial(annotate, scores), view, partial(loop, scores)]
        for _ in range(ROUNDS):
            for kind in TYPES:
                for number, way in enumerate(ways):
                    target = Path(folder, f"{number}.{kind}")
                    times[kind][number].append(seconds(way, source, target))
    header = ("VCF to", "ours, s", "`bcftools view`, s", "pysam, s", "ours / bcftools", "pysam / bcftools")
    rows = [row(kind, *times[kind]) for kind in TYPES]
    title = f"## Variants without a model (`make bench`): {RECORDS:,} records, {ROUNDS} interleaved rounds"
    write_section("plumbing", f"{title}\n\n{EXPLANATION}\n\n{table(header, rows)}")


if __name__ == "__main__":
    main()
