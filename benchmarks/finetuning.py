"""Fine-tuning on public labelled sets beside a k-mer model: `python -m benchmarks.finetuning --runs FOLDER`.

Each set is learnt from fresh weights, from a model pretrained here on the same organism, and from weights
that began as HyenaDNA's published ones; three seeds each. Runs are kept in FOLDER: what is there already is
not made again, so that the table can be made over several sittings, and on several machines.
"""

import argparse
import gzip
import json
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import DATA, GENOMES, LABELLED, PUBLISHED_WEIGHTS
from benchmarks.results import table, write_section
from benchmarks.runs import made

# Chosen on the validation split of mouse2, by one seed each; a rate of 1e-3 with dropout did as well once.
_TRAINING = ("--lr", "6e-4", "-b", "32", "--embed-dropout", "0")
ABOUT = textwrap.dedent("""\
    ## Fine-tuning on public labelled sets (`python -m benchmarks.finetuning --runs FOLDER`)

    Metrics of the test splits. *k-mers*: a logistic (ridge, for numbers) model of k-mer counts, k and
    penalty chosen on the validation split, with its 95 % bootstrap interval. *fresh*: tiny-1k (width
    128, 2 layers) from random weights. *pretrained here*: one epoch of tiny-1k on the human pieces (400
    steps; held-out loss 1.297) or on yeast (300 steps, 1.337, without the chromosomes tested on here).
    *published weights*: HyenaDNA's own tiny-1k, pretrained on the human genome by its authors and then
    fine-tuned by a third party on one of the GenomicBenchmarks sets, not known which: what it has for
    cohn, ocr and regulatory may be flattered by that. *frozen*: a linear model of their mean states.
    All others train everything, with the same settings and passes. Mean ± standard deviation (number of
    seeds). *re-run*: the paper's pretrained model, fine-tuned and cross-validated by others on the
    whole sets (the spread is between extremes), of which those here are parts (ocr, regulatory 1 %,
    cohn 25 %), or split otherwise.""")
ABOUT_JOINED = textwrap.dedent("""\
    ## Joined with k-mers (`python -m benchmarks.finetuning --runs FOLDER --joined`)

    Test splits of the same sets. *k-mers*: 3- to 6-mers on one scale, by fifths where the validation split
    chose them, with the 95 % bootstrap interval. *frozen*: a linear model of the mean states of the
    published weights (`--method head --solver sklearn`; both strands, but one strand for prom_300_tata and
    the terminators, which have an orientation). *all trained*: from the published weights, with the settings
    and passes of the table above, mean ± standard deviation of the seeds. *joined*: with the k-mers, as
    `--experts auto` joins them by the validation split. *difference*: of the joined model and the k-mers on
    the same test records, with its paired 95 % bootstrap interval; of all trained, its mean over the seeds,
    and of how many seeds the interval is above 0 and below. The metric is the one that chooses models of
    the task.""")
COMMON = (*_TRAINING, "--rc-augment", "--rc", "mean", "--patience", "10")
PRETRAINING: Mapping[str, Sequence[object]] = {
    "human": (GENOMES / "hg38.pieces.fa.gz", "--max-steps", "400"),
    "yeast": (GENOMES / "yeast_R64.fa.gz", "--max-steps", "300", "--valid-contigs", "IV,XIII"),
}
STARTS = FRESH, PRETRAINED, PUBLISHED, PROBE = "fresh", "pretrained", "published", "probe"
_FROZEN = ("--method", "head", "--solver", "sklearn", "--rc")
_PROBE = (*_FROZEN, "mean", "--no-baseline")
_ORIENTED = ("prom_300_tata", "yeast terminators")
JOINED = "joined"
_SHOWN = "network", "joined", "difference"


@dataclass(frozen=True)
class Labelled:
    """A labelled set.

    Attributes:
        data: arguments that name it and its splits.
        metric: what is compared.
        epochs: passes through it.
        pretrained: the model that knows its organism.
        rerun: an independent re-run of the paper's pretrained model (mean and spread of
            cross-validation), where there is one of these data.
    """

    data: Sequence[object]
    metric: str
    epochs: int
    pretrained: str = "human"
    rerun: str = ""


def _table(name: str, *splits: str) -> list[object]:
    """The files of a set that comes in train, dev and test."""
    flags = {"train": (), "dev": ("--valid",), "test": ("--test",)}
    return [part for split in splits for part in (*flags[split], LABELLED / f"{name}_{split}.csv.gz")]


def _enhancers(split: str) -> list[str]:
    folder = LABELLED / "ienhancer2L"
    return [f"{kind}={folder / f'{kind}_{split}.fa.gz'}" for kind in ("enhancer", "non_enhancer")]


def sets(folder: Path) -> dict[str, Labelled]:
    """All sets; BED files of one histone mark each are written into a folder."""
    enhancers = [*_enhancers("train"), *(part for file in _enhancers("test") for part in ("--test", file))]
    return {
        "mouse2": Labelled(_table("gue_mouse2", "train", "dev", "test"), "mcc", 10),
        "iEnhancer-2L": Labelled(enhancers, "mcc", 8, rerun=".517 ± .117"),
        "H4": Labelled(_windows("H4", folder), "mcc", 5, "yeast", ".763 ± .044"),
        "H3": Labelled(_windows("H3", folder), "mcc", 5, "yeast", ".779 ± .037"),
        "ocr (part)": Labelled(
            _table("gb_part_human_ocr_ensembl", "train", "test"), "accuracy", 8, rerun=".783 ± .007"
        ),
        "regulatory (part)": Labelled(
            _table("gb_part_human_ensembl_regulatory", "train", "test"),
            "accuracy",
            4,
            rerun=".869 ± .012",
        ),
        "cohn, 70/30": Labelled(
            [
                LABELLED / "gb_human_enhancers_cohn_testsplit.csv.gz",
                *("--label-column", "target", "--test-fraction", "0.3"),
            ],
            "accuracy",
            2,
            rerun=".729 ± .014",
        ),
        "prom_300_tata": Labelled(_table("gue_prom_300_tata", "train", "dev", "test"), "mcc", 6),
        "yeast terminators": Labelled(
            [
                LABELLED / "yeast_terminators_expression.txt.gz",
                *("--sequence-column", "1", "--label-column", "2"),
            ],
            "pearson",
            2,
            "yeast",
        ),
        "tf0": Labelled(_table("gue_tf0", "train", "dev", "test"), "mcc", 1),
    }


def _windows(mark: str, folder: Path) -> list[object]:
    """The windows of a histone mark as a BED, split by chromosome as the pretraining was."""
    path = folder / f"{mark}.bed"
    with gzip.open(DATA / "annotation" / "yeast_emp_H3_H4_windows_R64.bed.gz", "rt") as stream:
        path.write_text("".join(line for line in stream if f"\t{mark}|" in line))
    groups = ("--valid-groups", "VII", "--test-groups", "IV,XIII")
    return [path, "-f", GENOMES / "yeast_R64.fa.gz", "--label-column", "score", *groups]


def pretrained(name: str, folder: Path, threads: int) -> Path:
    """The run directory of a pretrained model, made where it is not there."""
    flags = ("--lr", "2e-3", "--rc-augment", "-@", threads)
    return made(folder / f"pretrained-{name}", "pretrain", *PRETRAINING[name], *flags)


def finetuned(name: str, labelled: Labelled, start: str, args: argparse.Namespace) -> None:
    """Learn a set from a start, over all seeds."""
    models = {FRESH: "tiny-1k", PUBLISHED: PUBLISHED_WEIGHTS, PROBE: PUBLISHED_WEIGHTS}
    model = models.get(start) or pretrained(labelled.pretrained, args.runs, args.threads)
    all_trained = (*COMMON, "--epochs", labelled.epochs, "--seeds", args.seeds)
    flags = _PROBE if start == PROBE else all_trained
    made(place(args.runs, name, start), "finetune", *labelled.data, "-m", model, *flags, "-@", args.threads)


def joined(name: str, labelled: Labelled, args: argparse.Namespace) -> None:
    """Join the k-mers with a head on frozen published weights, and with all of them trained."""
    flags = (*_FROZEN, "none" if name in _ORIENTED else "mean", "-@", args.threads)
    run = place(args.runs, name, JOINED)
    made(run, "finetune", *labelled.data, "-m", PUBLISHED_WEIGHTS, *flags)
    finetuned(name, labelled, PUBLISHED, args)


def joined_row(name: str, folder: Path) -> list[str] | None:
    """A line of the table of joined models, where a run of each kind is there."""
    frozen, trained = judged(place(folder, name, JOINED)), judged(place(folder, name, PUBLISHED))
    if not frozen or not trained:
        return None
    metric, splits = frozen[0]["verdict"]["metric"], frozen[0]["splits"]
    difference = frozen[0]["verdict"]["difference"]
    differences = [seed["verdict"]["difference"] for seed in trained]
    above = sum(one["low"] > 0 for one in differences)
    below = sum(one["high"] < 0 for one in differences)
    return [
        name,
        f"{splits['valid']['records']:,} / {splits['test']['records']:,}",
        metric,
        _interval(frozen[0]["kmers_baseline"]["splits"]["test"]["metrics"][metric]),
        _network(frozen, metric),
        _joined(frozen, metric),
        "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**difference),
        _network(trained, metric),
        _joined(trained, metric),
        f"{statistics.fmean(one['value'] for one in differences):+.3f}, {above} above, {below} below",
    ]


def _network(seeds: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The network alone, on the test split."""
    return _spread([network_splits(seed)["test"]["metrics"][metric]["value"] for seed in seeds])


def _joined(seeds: Sequence[Mapping[str, Any]], metric: str) -> str:
    """What is used, on the test split; says of how many seeds that is the network alone."""
    alone = sum(not seed.get("network") for seed in seeds)
    values = _spread([seed["splits"]["test"]["metrics"][metric]["value"] for seed in seeds])
    return f"{values}, {alone} not joined" if alone else values


def network_splits(seed: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the network alone has on each split, of a model that may be joined."""
    splits: Mapping[str, Any] = seed.get("network") or seed["splits"]
    return splits


def _interval(measured: Mapping[str, float]) -> str:
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**measured)


def place(folder: Path, name: str, start: str) -> Path:
    """Where a set's run from a start is."""
    return folder / f"{name.replace(' ', '-').replace('/', '-')}.{start}"


def judged(run: Path) -> list[dict[str, Any]]:
    """What is said of the seeds of a run that are done."""
    files = sorted(run.glob("trials/*/metrics.json")) or sorted(run.glob("metrics.json"))
    return [json.loads(file.read_text()) for file in files]


def row(name: str, labelled: Labelled, folder: Path) -> list[str] | None:
    """A line of the table, of the runs that are there."""
    said = [judged(place(folder, name, start)) for start in STARTS]
    one = next((seeds[0] for seeds in said if seeds and "kmers_baseline" in seeds[0]), None)
    if one is None:
        return None
    sizes = " / ".join(f"{one['splits'][split]['records']:,}" for split in ("train", "valid", "test"))
    beside = one["kmers_baseline"]["splits"]["test"]["metrics"][labelled.metric]
    cells = [
        _spread([network_splits(seed)["test"]["metrics"][labelled.metric]["value"] for seed in seeds])
        for seeds in said
    ]
    return [name, sizes, labelled.metric, str(labelled.epochs), _interval(beside), *cells, labelled.rerun]


def _spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    match values:
        case []:
            return "-"
        case [value]:
            return f"{value:.3f}"
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f} ({len(values)})"


def main() -> None:
    """Make what is missing, in the order of the sets, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--starts", nargs="*", default=STARTS, choices=STARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--joined", action="store_true", help="only published weights joined with k-mers")
    parser.add_argument("--table", action="store_true", help="write the table of what is there, run nothing")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    chosen = {name: one for name, one in sets(args.runs).items() if not args.only or name in args.only}
    if args.joined:
        for name, labelled in chosen.items() if not args.table else ():
            joined(name, labelled, args)
        rows = [line for name in chosen if (line := joined_row(name, args.runs))]
        kinds = [f"{kind}: {what}" for kind in ("frozen", "all trained") for what in _SHOWN]
        header = ["set", "valid / test", "metric", "k-mers", *kinds]
        write_section("finetuning-joined", f"{ABOUT_JOINED}\n\n{table(header, rows)}")
        return
    for name, labelled in chosen.items() if not args.table else ():
        for start in args.starts:
            finetuned(name, labelled, start, args)
    rows = [line for name, labelled in chosen.items() if (line := row(name, labelled, args.runs))]
    header = [
        "set",
        "train / valid / test",
        "metric",
        "epochs",
        "k-mers",
        "fresh",
        "pretrained here",
        "published weights",
        "published weights, frozen",
        "re-run",
    ]
    write_section("finetuning", f"{ABOUT}\n\n{table(header, rows)}")


if __name__ == "__main__":
    main()
