"""Variants read, annotated and written beside `bcftools view`: `python -m benchmarks.plumbing`.

What scoring adds to a file costs this much besides the model. Rounds are interleaved.
"""

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.results import table, write_section
from hyenacli.readers.variants import open_variants
from hyenacli.writers.variants import open_annotated
from hyenacli.writers.vcf import InfoField

RECORDS = 1_000_000
ROUNDS = 3
FIELDS = (InfoField("HYENA_LLR", "A", "Float", "x"), InfoField("HYENA_STATUS", "A", "String", "y"))
EXPLANATION = """\
Medians of wall time, of a VCF of one contig, 45 bytes per line, one line in ten with two ALT alleles. *ours*
parses, adds a number and a status per ALT allele (drawn beforehand), and writes, .vcf.gz with its index;
`bcftools view` parses and writes, without index. Both use one thread."""
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
    """Read, annotate with numbers that are there already, write."""
    with (
        open_variants(source) as variants,
        open_annotated(target, None, variants.header, FIELDS, ["##hyena_version=1"]) as out,
    ):
        for record in variants:
            count = len(record.alts)
            own = scores[count][record.line % 9973]
            out.write(record, {"HYENA_LLR": own, "HYENA_STATUS": ["OK"] * count})


def view(source: Path, target: Path) -> None:
    """The same without annotation, by bcftools."""
    letter = TYPES[target.name.partition(".")[2]]
    subprocess.run(["bcftools", "view", f"-O{letter}", "-o", target, source], check=True)


def seconds(work: Callable[[Path, Path], None], source: Path, target: Path) -> float:
    """Wall time."""
    start = time.perf_counter()
    work(source, target)
    return time.perf_counter() - start


def row(kind: str, ours: list[float], theirs: list[float]) -> list[str]:
    """A line of the table: medians and their ratio."""
    own, other = statistics.median(ours), statistics.median(theirs)
    return [f".{kind}", f"{own:.1f}", f"{RECORDS / own:,.0f}", f"{other:.1f}", f"{own / other:.1f}"]


def main() -> None:
    """Measure, print and write RESULTS.md."""
    if shutil.which("bcftools") is None:
        sys.exit("bcftools is not installed")
    ours: dict[str, list[float]] = {kind: [] for kind in TYPES}
    theirs: dict[str, list[float]] = {kind: [] for kind in TYPES}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.vcf")
        write_input(source)
        ours_on = partial(annotate, draw_scores())
        for _ in range(ROUNDS):
            for kind in TYPES:
                ours[kind].append(seconds(ours_on, source, Path(folder, f"ours.{kind}")))
                theirs[kind].append(seconds(view, source, Path(folder, f"theirs.{kind}")))
    header = ("VCF to", "ours, s", "records per s", "`bcftools view`, s", "ratio")
    rows = [row(kind, ours[kind], theirs[kind]) for kind in TYPES]
    title = f"## Variants without a model (`make bench`): {RECORDS:,} records, {ROUNDS} interleaved rounds"
    write_section("plumbing", f"{title}\n\n{EXPLANATION}\n\n{table(header, rows)}")


if __name__ == "__main__":
    main()
