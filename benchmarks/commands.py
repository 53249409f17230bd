"""Whole commands, of this version and of another: `python -m benchmarks.commands --base FOLDER [CASE...]`.

Needs the human data of the tests, in HYENA_TEST_DATA.
"""

import argparse
import gzip
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import GENOMES, VARIANTS
from benchmarks.engine import fresh
from benchmarks.processes import Timing
from benchmarks.results import ROOT, table, write_section
from hyenadna import preset, save_model

FASTA = GENOMES / "hg_chr22_20-21M.fa.gz"
VCF = VARIANTS / "chr22_20-21M.dbsnp.vcf.gz"
ROUNDS = 2

# What a user would write around the plain model: 32 sequences a pass, the mean over their bases.
SCRIPT = """
import sys
import numpy as np, torch
from pyfaidx import Fasta
from hyenadna import Tokenizer, load_model
model, tokenizer = load_model(sys.argv[1]).eval(), Tokenizer()
records = Fasta(sys.argv[2], as_raw=True)
names, vectors = list(records.keys()), []
for first in range(0, len(names), 32):
    ids = torch.stack([tokenizer.encode(records[name][:]) for name in names[first : first + 32]]).long()
    with torch.inference_mode():
        vectors.append(model.plain(ids).hidden.mean(1).numpy())
np.savez(sys.argv[3], id=names, embedding=np.concatenate(vectors))
"""


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        arguments: without the output.
        output: name of the output.
        units: what a cost is given for, `count` of them.
        count: how many there are.
        script: what a user without the tool would run on the same input, if that is compared.
    """

    arguments: tuple[str, ...]
    output: str
    units: str
    count: int
    script: tuple[str, ...] = ()


def write_inputs() -> dict[str, Case]:
    """Write models, sequences and variants into the current folder, and return the cases."""
    for name in ("tiny-1k", "small-32k"):
        save_model(fresh(preset(name)).eval(), name)
    bases = random.Random(0)
    sequences = ["".join(bases.choices("ACGT", k=500)) for _ in range(2000)]
    Path("sequences.fa").write_text("".join(f">s{i}\n{seq}\n" for i, seq in enumerate(sequences)))
    Path("genome.fa").write_bytes(gzip.decompress(FASTA.read_bytes()))
    contig = Path("genome.fa").read_text().split()[0][1:]
    Path("bases.bed").write_text(f"{contig}\t800000\t800125\n")
    near = write_variants("near.vcf", lambda _, record: 800_000 <= int(record[1]) < 808_192)
    wide = write_variants("wide.vcf", lambda _, record: 800_000 <= int(record[1]) < 832_768)
    snvs = write_variants("snvs.vcf", _is_spread_snv)
    write_variants("none.vcf", lambda *_: False)
    score = ("-m", "small-32k", "-f", "genome.fa")
    long, short = ("--window", "32768"), ("--downstream", "512")
    embed = ("embed", "sequences.fa", "-m", "tiny-1k")
    return {
        "start-up: score-variants without records": Case(
            ("score-variants", "none.vcf", *score), "none.tsv", "command", 1
        ),
        "embed 2,000 sequences of 500 bases, tiny-1k": Case(
            embed, "embedded.npz", "sequence", 2000, ("tiny-1k", "sequences.fa")
        ),
        "dbSNP, small-32k, defaults": Case(
            ("score-variants", "near.vcf", *score), "near.tsv", "allele", near
        ),
        "dbSNP, small-32k, window 32,768, downstream 512": Case(
            ("score-variants", "wide.vcf", *score, *long, *short), "wide.tsv", "allele", wide
        ),
        "every substitution of 125 bases, window 32,768, downstream 512": Case(
            ("score-variants", "bases.bed", "--all-snvs", *score, *long, *short), "all.tsv", "allele", 375
        ),
        f"{snvs} SNVs over a megabase, window 32,768, one strand": Case(
            ("score-variants", "snvs.vcf", *score, *long, "--rc", "none"), "snvs.tsv", "allele", snvs
        ),
    }


def write_variants(path: str, chosen: Callable[[int, list[str]], bool]) -> int:
    """Write the records that are chosen, by number and cells, and return how many alleles they have."""
    count = 0
    with gzip.open(VCF, "rt") as lines, Path(path).open("w") as out:
        for number, line in enumerate(lines):
            cells = line.split("\t")
            if line.startswith("#") or chosen(number, cells):
                out.write(line)
                count += 0 if line.startswith("#") else len(cells[4].split(","))
    return count


def _is_spread_snv(number: int, record: list[str]) -> bool:
    is_inside = 60_000 < int(record[1]) < 940_000
    return is_inside and number % 35 == 0 and len(record[3]) == len(record[4]) == 1


def interleave(case: Case, trees: dict[str, Path]) -> dict[str, Timing]:
    """Time a command of each version, and the script, in turns."""
    timings = {name: Timing() for name in (*trees, *(["script"] if case.script else []))}
    for _ in range(ROUNDS):
        for name, timing in timings.items():
            tree = trees.get(name, ROOT)
            command = [sys.executable, "-m", "hyenacli", *case.arguments, "-o", case.output, "-q"]
            if name == "script":
                command = [sys.executable, "-c", SCRIPT, *case.script, case.output]
            Path(case.output).unlink(missing_ok=True)
            environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'models'}"}
            start = time.perf_counter()
            subprocess.run(command, check=True, env=environment)
            timing.seconds.append(time.perf_counter() - start)
    print("; ".join(f"{name} {timing} s" for name, timing in timings.items()), file=sys.stderr, flush=True)
    return timings


HEADER = ("command", "this version s", "other version s", "other / this", "ms for each of", "script s")
TEXT = """\
Seconds of whole commands, medians (least-most), in turns; fresh weights. *ms*: of this and of the other
version, without start-up, which is the time of the command without records. *script*: fifteen lines around
the plain model, which has the arithmetic of the published code."""


def rows(timings: dict[str, dict[str, Timing]], cases: dict[str, Case]) -> Iterable[list[str]]:
    """Make the lines of the table."""
    (start_up, *_) = timings.values()
    for name, by in timings.items():
        case, this, other = cases[name], by["now"], by.get("base")
        each = [
            f"{(timing.median - start_up[path].median) * 1000 / case.count:,.3g}"
            for path, timing in by.items()
            if path != "script"
        ]
        yield [
            name,
            str(this),
            str(other or "-"),
            f"**{other.median / this.median:.2f}**" if other else "-",
            "-" if by is start_up else f"{case.count:,} {case.units}s: {', '.join(each)}",
            str(by.get("script", "-")),
        ]


def main() -> None:
    """Measure, print and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="beginnings of names; default all")
    parser.add_argument("--base", metavar="FOLDER", type=Path, help="source tree of another version")
    given = parser.parse_args()
    if not VCF.exists():
        parser.error(f"{VCF} is not there: set HYENA_TEST_DATA to the folder that holds data/")
    trees = {"now": ROOT} | ({"base": given.base.resolve()} if given.base else {})
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        cases = write_inputs()
        timings = {
            name: interleave(case, trees)
            for name, case in cases.items()
            if not given.cases or name.startswith(("start-up", *given.cases))
        }
        os.chdir(ROOT)
    text = f"## Whole commands (`make bench BASE=FOLDER`)\n\n{TEXT}\n\n{table(HEADER, rows(timings, cases))}"
    if given.cases:
        print(text)
    else:
        write_section("commands", text)


if __name__ == "__main__":
    main()
