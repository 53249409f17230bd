"""Telling species apart, beside a k-mer model: `python -m benchmarks.species --runs FOLDER`.

Runs are kept in FOLDER: what is there already is not made again.
"""

import argparse
import csv
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import GENOMES, PUBLISHED_WEIGHTS
from benchmarks.results import table, write_section
from benchmarks.runs import hyena, made

VERTEBRATES = {
    "human": "hg38.pieces.fa.gz",
    "mouse": "mm10.pieces.fa.gz",
    "dog": "canFam3.pieces.fa.gz",
    "chicken": "galGal4.pieces.fa.gz",
}
MICROBES = {
    "ecoli": "ecoli_MG1655.fna.gz",
    "salmonella": "salmonella_LT2.fna.gz",
    "yeast": "yeast_R64.fa.gz",
}
# Whole viruses, and parts of the human genome: the last two may be human or unknown, nothing else.
STRANGERS = (
    "lambda.fa",
    "phiX174.fa",
    "sars_cov_2.NC_045512v2.fa",
    "hg38.chrM.fa",
    "hg_chr22_20-21M.fa.gz",
)
THRESHOLD = "0.7"
ABOUT = textwrap.dedent("""\
    ## Telling species apart (`python -m benchmarks.species --runs FOLDER`)

    Accuracy on windows of held-out contigs and blocks, with 95 % bootstrap intervals, beside a linear model
    of 6-mers that is fitted to 4,000 windows (1,024 of 32,768 bases) of the same length. Width 128, 2
    layers. *fresh*: from random weights; *pretrained*: from next-base prediction on the same genomes, their
    held-out parts without labels among them; *longer*: trained on from there; *published*: from HyenaDNA's
    tiny-1k, pretrained by its authors on the human genome, the held-out parts of the human pieces among it,
    and fine-tuned by a third party on one of the GenomicBenchmarks sets; as many steps as *pretrained*;
    *published-longer*: from there as well, with four times the steps, in bfloat16, and both strands read.""")
FRESH, PRETRAINED, LONGER = "fresh", "pretrained", "longer"
PUBLISHED, PUBLISHED_LONGER = "published", "published-longer"
STARTS = FRESH, PRETRAINED, LONGER, PUBLISHED, PUBLISHED_LONGER
# From published weights, with Markov models and k-mers joined; has a table of its own.
JOINED = "joined"
ABOUT_JOINED = textwrap.dedent("""\
    ## Species with Markov models and k-mers joined (`python -m benchmarks.species --runs FOLDER --joined`)

    Accuracy on the test windows of the sets above. *k-mers*: the linear model of 3- to 6-mers, fitted to
    4,000 training windows of the length. *Markov*: order 6, 8 and 10 of both strands of all training bases,
    the orders weighted by the validation windows of the length. *network*: trained from HyenaDNA's
    published tiny-1k as *published* above, both strands read. *joined*: what `--experts auto` makes of the
    three by the validation windows of 1,024 bases, and by pieces of 4,096 and 16,384 for what is as long,
    with its 95 % bootstrap interval. *above k-mers*: the difference on the same windows, with its paired
    interval.""")


@dataclass(frozen=True)
class Task:
    """A set of species.

    Attributes:
        about: what is read at once.
        species: their files.
        preset: of fresh weights.
        pretraining: flags of `pretrain` on all the genomes.
        training: flags of `classify-species train`.
        lengths: of the windows it is judged on.
        windows: of each species and length.
        starts: what it is learnt from, and flags that replace those of `training` there.
    """

    about: str
    species: Mapping[str, str]
    preset: Sequence[object]
    pretraining: Sequence[object]
    training: Sequence[object]
    lengths: Sequence[int]
    windows: int
    starts: Mapping[str, Sequence[object]]


# Two windows of 32,768 a step, or as many bases of short ones, which teach what is local.
_WARMUP = ("--global-batch-size", 2, "--length-warmup", "1024:80,4096:50,16384:30", "--max-steps", 200)
# A genome's held-out part has to have enough windows of 32,768.
_HELD_OUT = ("--valid-fraction", 0.1, "--test-fraction", 0.3)
_LEARNING = ("--lr", "1e-3", "--rc-augment", "--embed-dropout", 0)
_LONG = (1024, 4096, 16_384, 32_768)
_EXTENDED = ("--dtype", "bfloat16", "--rc", "mean", "--max-steps")
_ALONE = ("--experts", "none")
_BRIEF = ("--max-steps", 250, "--lr", "2e-3", "--rc-augment", "--eval-windows", 64)
TASKS = {
    "microbes": Task(
        "1,024 bases at once, longer windows pooled",
        MICROBES,
        ("--preset", "tiny-1k"),
        _BRIEF,
        ("--max-steps", 500, "--global-batch-size", 16, *_LEARNING),
        (256, 1024, 4096),
        200,
        {FRESH: (), PRETRAINED: (), PUBLISHED: (), PUBLISHED_LONGER: (*_EXTENDED, 2000)},
    ),
    "vertebrates": Task(
        "1,024 bases at once, longer windows pooled",
        VERTEBRATES,
        ("--preset", "tiny-1k"),
        _BRIEF,
        ("--max-steps", 700, "--global-batch-size", 16, *_HELD_OUT, *_LEARNING),
        _LONG,
        60,
        {
            FRESH: (),
            PRETRAINED: (),
            LONGER: ("--max-steps", 1200),
            PUBLISHED: (),
            PUBLISHED_LONGER: (*_EXTENDED, 2800),
        },
    ),
    "vertebrates-32k": Task(
        "32,768 bases at once, trained by length warm-up",
        VERTEBRATES,
        ("--preset", "tiny-16k", "--max-length", 32_768),
        (*_WARMUP, "--lr", "2e-3", "--rc-augment", "--eval-windows", 8, "--eval-every", 100),
        (*_WARMUP, *_HELD_OUT, *_LEARNING, "--eval-windows", 12, "--eval-every", 40),
        _LONG,
        60,
        {FRESH: (), PRETRAINED: ()},
    ),
}


def trained(name: str, task: Task, start: str, folder: Path, threads: int) -> Path:
    """The run of a task from a start."""
    genomes = [GENOMES / file for file in task.species.values()]
    flags = ("-@", threads)
    if start == LONGER:
        weights = trained(name, task, PRETRAINED, folder, threads)
    elif start in (PUBLISHED, PUBLISHED_LONGER, JOINED):
        weights = PUBLISHED_WEIGHTS
    else:
        # A step at learning rate 0 keeps fresh weights of any context.
        how = task.pretraining if start == PRETRAINED else ("--max-steps", 1, "--lr", 0)
        weights = made(folder / f"{name}.{start}.weights", "pretrain", *genomes, *task.preset, *how, *flags)
    named = [part for one, file in task.species.items() for part in ("--species", f"{one}={GENOMES / file}")]
    run = folder / f"{name}.{start}"
    settings = (*task.training, *(() if start == JOINED else (*task.starts[start], *_ALONE)))
    return made(run, "classify-species", "train", *named, "-m", weights, *settings, *flags)


def lengths_of(name: str, start: str, folder: Path) -> Path:
    """Where the accuracies of a run are."""
    return folder / f"{name}.{start}.lengths.tsv"


def evaluate(name: str, task: Task, start: str, args: argparse.Namespace) -> None:
    """Train from a start, and judge by length."""
    run, output = trained(name, task, start, args.runs, args.threads), lengths_of(name, start, args.runs)
    if not output.exists():
        lengths = ",".join(map(str, task.lengths))
        flags = ("--lengths", lengths, "--windows", task.windows, "--plot", output.with_suffix(".svg"))
        hyena("classify-species", "evaluate", run, "-o", output, *flags, "-@", args.threads)


def predicted(run: Path, file: str, threads: int) -> list[dict[str, str]]:
    """A row per contig of a file."""
    output = run.with_suffix(f"{run.suffix}.{file.partition('.fa')[0]}.tsv")
    if not output.exists():
        flags = ("--threshold", THRESHOLD, "-@", threads)
        hyena("classify-species", "predict", GENOMES / file, "-m", run, "-o", output, *flags)
    return _rows(output)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader((line for line in stream if not line.startswith("##")), delimiter="\t"))


def judged(name: str, task: Task, folder: Path) -> list[str]:
    """The starts whose accuracies are there."""
    return [start for start in task.starts if lengths_of(name, start, folder).exists()]


def length_rows(name: str, task: Task, folder: Path) -> Iterator[list[str]]:
    """A line per length: accuracies of the runs that are there, and which species the last one finds."""
    said = {start: _rows(lengths_of(name, start, folder)) for start in judged(name, task, folder)}
    for length in task.lengths:
        found = {start: row for start, lines in said.items() for row in lines if row["length"] == str(length)}
        cells = [_interval(found[start]) if start in found else "-" for start in task.starts]
        if rows := list(found.values()):
            recall = ", ".join(f"{one} {float(rows[-1][f'recall_{one}']):.2f}" for one in task.species)
            kmers = f"{float(rows[0]['kmers_accuracy']):.3f}"
            yield [f"{length:,}", rows[0]["windows"], kmers, *cells, recall]


def joined_table(task: Task, rows: Sequence[Mapping[str, str]]) -> str:
    """The accuracies of one set, of each predictor alone and of all joined."""
    header = ["bases of a window", "windows", "k-mers", "Markov", "network", "joined", "above k-mers"]
    lines = []
    for row in rows:
        alone = [f"{float(row[f'{name}_accuracy']):.3f}" for name in ("kmers", "markov", "network")]
        change = [f"{float(row[f'kmers_difference{end}']):+.3f}" for end in ("", "_low", "_high")]
        above = "{} [{}, {}]".format(*change)
        lines.append([f"{int(row['length']):,}", row["windows"], *alone, _interval(row), above])
    recall = ", ".join(f"{name} {float(rows[0][f'recall_{name}']):.2f}" for name in task.species)
    return f"{table(header, lines)}\n\nRecall at {int(rows[0]['length']):,} bases: {recall}."


def join(chosen: Mapping[str, Task], args: argparse.Namespace) -> None:
    """Make what is missing of the joined models, and write their table."""
    parts = [ABOUT_JOINED]
    for name, task in chosen.items():
        if PUBLISHED not in task.starts:
            continue
        if not args.table:
            evaluate(name, task, JOINED, args)
        if lengths_of(name, JOINED, args.runs).exists():
            rows = _rows(lengths_of(name, JOINED, args.runs))
            verdict = json.loads((args.runs / f"{name}.{JOINED}" / "metrics.json").read_text())["verdict"]
            parts.append(f"{name}: {verdict['sentence']}.\n\n{joined_table(task, rows)}")
    write_section("species-joined", "\n\n".join(parts))


def _interval(row: Mapping[str, str]) -> str:
    value, low, high = (float(row[f"accuracy{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def stranger_rows(name: str, task: Task, args: argparse.Namespace) -> Iterator[list[str]]:
    """A line per contig: what the model of the last start that is there says of it."""
    run = args.runs / f"{name}.{judged(name, task, args.runs)[-1]}"
    for file in STRANGERS:
        for row in predicted(run, file, args.threads):
            chances = ", ".join(f"{one} {float(row[f'p_{one}']):.2f}" for one in task.species)
            yield [name, row["id"].replace("|", r"\|"), f"{int(row['length']):,}", row["prediction"], chances]


def main() -> None:
    """Make what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--starts", nargs="*", choices=STARTS, default=STARTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--joined", action="store_true", help="only the models that others join")
    parser.add_argument(
        "--table", action="store_true", help="write the table of what is there, train nothing"
    )
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    chosen = {name: TASKS[name] for name in args.only}
    if args.joined:
        join(chosen, args)
        return
    for name, task in chosen.items() if not args.table else ():
        for start in task.starts:
            if start in args.starts:
                evaluate(name, task, start, args)
    parts = [ABOUT]
    known = {name: task for name, task in chosen.items() if judged(name, task, args.runs)}
    for name, task in known.items():
        header = ["bases of a window", "windows", "6-mers", *task.starts, "recall of the last"]
        title = f"{name} ({', '.join(task.species)}; {task.about})"
        parts.append(f"{title}:\n\n{table(header, length_rows(name, task, args.runs))}")
    strangers = [row for name, task in known.items() for row in stranger_rows(name, task, args)]
    header = ["model of", "contig", "bases", f"prediction, threshold {THRESHOLD}", "probabilities"]
    parts.append(f"Contigs of other sources:\n\n{table(header, strangers)}")
    write_section("species", "\n\n".join(parts))


if __name__ == "__main__":
    main()
