"""What shards cost: work per shard, start-up and merge, and what a genome would take at the measured rates.

Run with `python -m benchmarks.scale`. All is process time (user and system), which other jobs on the machine
change little. The genome and its variants are synthetic, the model is tiny-1k with random weights.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.results import table, write_section
from hyenacli.readers.text import open_binary
from hyenacli.writers.vcf import shard_line
from hyenacli.writers.vcf_files import VCFS
from hyenadna import HyenaDNA, preset, save_model

CONTIG, SHARDS = 1_000_000, (1, 2, 4, 8)
REGION = 500
# Shares are measured with small windows, in a quarter of the time; what a genome takes, with the default.
SMALL = {"score-variants": ("--window", 256), "embed": ()}
SAMPLE = 1024
# What the table on paper is for: variants of a genome, and regions.
GENOME_VARIANTS, GENOME_REGIONS = 4_500_000, 1_000_000


def run(*words: object) -> tuple[float, float]:
    """Run a command; return its process time, user and system, and its peak of memory in MiB."""
    process = subprocess.Popen([sys.executable, "-m", "hyenacli", *map(str, words), "-q"])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"hyena {' '.join(map(str, words))}: exit code {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def hyena(*words: object) -> float:
    """Run a command; return its process time."""
    return run(*words)[0]


def write_inputs(folder: Path, bases: int, variants: int, regions: int) -> None:
    """Write genome.fa, v.vcf and r.bed with records spread evenly over contigs of 1 Mb."""
    draw = random.Random(0)
    contigs = {f"chr{i + 1}": "".join(draw.choices("ACGT", k=CONTIG)) for i in range(max(1, bases // CONTIG))}
    (folder / "genome.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    with (folder / "v.vcf").open("w") as vcf, (folder / "r.bed").open("w") as bed:
        vcf.write(f"##fileformat=VCFv4.2\n{columns}\n")
        for name, sequence in contigs.items():
            for start in range(0, CONTIG - REGION, CONTIG * len(contigs) // regions):
                bed.write(f"{name}\t{start}\t{start + REGION}\n")
            for position in range(0, CONTIG, CONTIG * len(contigs) // variants):
                alt = draw.choice("ACGT".replace(sequence[position], ""))
                vcf.write(f"{name}\t{position + 1}\t.\t{sequence[position]}\t{alt}\t.\t.\t.\n")
    torch.manual_seed(0)
    save_model(HyenaDNA(preset("tiny-1k")), folder / "model")


def measure_shards(
    folder: Path, verb: str, source: Path, suffix: str
) -> tuple[list[list[str]], float, float]:
    """Run a verb over 1, 2, 4 and 8 shards and merge; return rows, records a second, and a start."""
    flags = ("-f", folder / "genome.fa", "-m", folder / "model", "-@", 1, "--device", "cpu")
    lines = source.read_text().splitlines(keepends=True)
    header = sum(line.startswith("#") for line in lines)
    few = folder / f"few{source.suffix}"
    few.write_text("".join(lines[:header]))
    hyena(verb, few, *flags, "-o", folder / f"few{suffix}")  # the genome is cached by the first
    start = min(hyena(verb, few, *flags, "-o", folder / f"few{suffix}") for _ in range(3))
    few.write_text("".join(lines[: header + SAMPLE]))
    rate = SAMPLE / (hyena(verb, few, *flags, "-o", folder / f"few{suffix}") - start)
    rows, alone, common = [], 0.0, (verb, source, *flags, *SMALL[verb])
    for count in SHARDS:
        parts = [folder / f"{verb}.{i}-{count}{suffix}" for i in range(1, count + 1)]
        seconds = [hyena(*common, "-o", part, "--shard", f"{i}/{count}") for i, part in enumerate(parts, 1)]
        merge = hyena("merge", *parts, "-o", folder / f"{verb}.{count}{suffix}")
        alone = alone or seconds[0]
        ideal = (alone - start) / count + start
        share = f"{100 * ideal / max(seconds):.0f} %"
        rows.append([str(count), f"{sum(seconds):.1f}", f"{max(seconds):.1f}", share, f"{merge:.1f}"])
    return rows, rate, start


def measure_merge(folder: Path, suffix: str, shards: int) -> list[str]:
    """Merge shards of 4,500 records; return a row of the table."""
    draw, parts, position = random.Random(0), [], 0
    for number in range(1, shards + 1):
        lines = []
        for _ in range(4_500):
            position += draw.randint(1, 40)
            info = f"AF={draw.random():.5f};HYENA_LLR={draw.gauss(0, 2):.6g};HYENA_STATUS=OK"
            lines.append(f"chr1\t{position}\trs{draw.randrange(10**9)}\tA\tC\t.\tPASS\tAN=5008;{info}\n")
        mark = {"number": number, "of": shards, "records": 4_500 * shards, "input_sha256": "0"}
        columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
        head = [
            "##fileformat=VCFv4.2",
            "##contig=<ID=chr1>",
            shard_line(mark | {"every_record": True}),
            columns,
        ]
        parts.append(folder / f"part.{number}.{suffix}")
        with VCFS[suffix].open_lines(parts[-1], [f"{line}\n".encode() for line in head]) as write:
            write("".join(lines).encode())
    merge, peak = run("merge", *parts, "-o", folder / f"merged.{suffix}")
    n_bytes = sum(len(line) for part in parts for line in open_binary(part))
    megabytes = n_bytes / 1e6
    numbers = f"{megabytes:.0f}", f"{merge:.1f}", f"{megabytes / merge:.0f}", f"{peak:.0f}"
    return [f".{suffix}", f"{shards:,}", *numbers]


def on_paper(per_second: dict[str, float], start: float) -> list[list[str]]:
    """Return the table of hours: one core as measured, more by proportion."""
    rows = []
    for work, count, verb in (
        (f"{GENOME_VARIANTS:,} variants", GENOME_VARIANTS, "score-variants"),
        (f"{GENOME_REGIONS:,} regions of {REGION} bases", GENOME_REGIONS, "embed"),
    ):
        hours = [(count / per_second[verb] + start * cores) / cores / 3600 for cores in (1, 2, 64)]
        rows.append([work, *(f"{value:.2g}" for value in hours)])
    return rows


def main() -> None:
    """Measure, print, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", type=int, default=10_000_000, help="of the genome")
    parser.add_argument("--variants", type=int, default=100_000)
    parser.add_argument("--regions", type=int, default=20_000)
    parser.add_argument("--merged-shards", type=int, default=1000)
    options = parser.parse_args()
    text: list[str] = []
    rates: dict[str, float] = {}
    starts: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, options.bases, options.variants, options.regions)
        for verb, source, suffix in (("score-variants", "v.vcf", ".vcf.gz"), ("embed", "r.bed", ".parquet")):
            rows, rates[verb], start = measure_shards(folder, verb, folder / source, suffix)
            with (folder / source).open() as lines:
                records = sum(not line.startswith("#") for line in lines)
            starts.append(start)
            titles = ("shards", "CPU s of all", "of the longest", "of ideal", "merge")
            call = " ".join(map(str, (verb, *SMALL[verb])))
            intro = f"`{call}`, {records:,} records; start of a shard {start:.1f} s of CPU"
            rate = f"With default flags {rates[verb]:.1f} records a second of CPU, by {SAMPLE:,} of them."
            text.append(f"{intro}:\n\n{table(titles, rows)}\n\n{rate}")
        merges = [
            measure_merge(folder, suffix, shards)
            for suffix in ("vcf", "vcf.gz")
            for shards in (options.merged_shards // 10, options.merged_shards)
        ]
    header = ("shards of", "how many", "MB of text", "CPU s", "MB/s", "peak MiB")
    text.append(f"`hyena merge`, start-up included:\n\n{table(header, merges)}")
    cores = ("hours for", "1 core", "2 cores", "64 cores")
    said = "One core at the rates above, more by division with a start-up each. No GPU rate was measured."
    text.append(f"On paper, tiny-1k. {said}\n\n{table(cores, on_paper(rates, max(starts)))}")
    title = f"## Shards (`python -m benchmarks.scale`): {options.bases:,} bases, tiny-1k, process time"
    write_section("scale", "\n\n".join([title, *text]))


if __name__ == "__main__":
    main()
