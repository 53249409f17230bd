"""Fine-tuning on public labelled sets beside a k-mer model: `python -m benchmarks.finetuning --runs FOLDER`.

Each set is learnt from fresh weights and, where that makes sense, from a model pretrained here on the same
organism; three seeds each. Runs are kept in FOLDER: what is there already is not made again, so that the
table can be made over several sittings, and on several machines.
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, table, write_section

SHARED = ROOT.parent / "shared" / "data"
LABELLED, GENOMES = SHARED / "labelled", SHARED / "genomes"
SEEDS = 3
# Chosen on the validation split of mouse2: with the embedding's dropout four epochs do what ten did not.
_TRAINING = ("--lr", "6e-4", "-b", "32", "--embed-dropout", "0")
COMMON = (*_TRAINING, "--rc-augment", "--rc", "mean", "--patience", "10")
PRETRAINING: Mapping[str, Sequence[object]] = {
    "human": (GENOMES / "hg38.pieces.fa.gz", "--max-steps", "400"),
    "yeast": (GENOMES / "yeast_R64.fa.gz", "--max-steps", "300", "--valid-contigs", "IV,XIII"),
}
FRESH = "fresh"


@dataclass(frozen=True)
class Labelled:
    """A labelled set.

    Attributes:
        data: arguments that name it and its splits.
        metric: what is compared.
        epochs: passes through it.
        pretrained: the model that knows its organism, or None.
        published: what others report, where data and split allow the comparison.
    """

    data: Sequence[object]
    metric: str
    epochs: int
    pretrained: str | None = "human"
    published: str = ""
    more: Sequence[str] = field(default=())


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
        "iEnhancer-2L": Labelled(enhancers, "mcc", 6),
        "H4": Labelled(_windows("H4", folder), "mcc", 3, "yeast"),
        "H3": Labelled(_windows("H3", folder), "mcc", 3, "yeast"),
        "ocr (part)": Labelled(_table("gb_part_human_ocr_ensembl", "train", "test"), "accuracy", 5),
        "regulatory (part)": Labelled(
            _table("gb_part_human_ensembl_regulatory", "train", "test"), "accuracy", 3
        ),
        "cohn, 70/30": Labelled(
            [LABELLED / "gb_human_enhancers_cohn_testsplit.csv.gz", "--test-fraction", "0.3"], "accuracy", 2
        ),
        "prom_300_tata": Labelled(_table("gue_prom_300_tata", "train", "dev", "test"), "mcc", 4),
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
    with gzip.open(SHARED / "annotation" / "yeast_emp_H3_H4_windows_R64.bed.gz", "rt") as stream:
        path.write_text("".join(line for line in stream if f"\t{mark}|" in line))
    groups = ("--valid-groups", "VII", "--test-groups", "IV,XIII")
    return [path, "-f", GENOMES / "yeast_R64.fa.gz", "--label-column", "score", *groups]


def hyena(*arguments: object) -> None:
    """Run the command, showing what a user would type."""
    print(f"\n$ hyena {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([sys.executable, "-m", "hyenacli", *map(str, arguments)], check=True)


def pretrained(name: str, folder: Path, threads: int) -> Path:
    """The run directory of a pretrained model, made where it is not there."""
    run = folder / f"pretrained-{name}"
    if not (run / "report.html").exists():
        more = ["--resume"] if (run / "config.yaml").exists() else []
        flags = ("--lr", "2e-3", "--rc-augment", "-@", threads)
        hyena("pretrain", *PRETRAINING[name], "-o", run, *flags, *more)
    return run


def finetuned(name: str, labelled: Labelled, start: str, folder: Path, threads: int) -> dict[str, Any]:
    """What metrics.json says of a set, learnt from a start, over all seeds."""
    run = folder / f"{name.replace(' ', '-').replace('/', '-')}.{start}"
    if not (run / "metrics.json").exists():
        model = "tiny-1k" if start == FRESH else pretrained(start, folder, threads)
        more = ["--resume"] if (run / "config.yaml").exists() else []
        flags = (*COMMON, *labelled.more, "--epochs", labelled.epochs, "--seeds", SEEDS, "-@", threads)
        hyena("finetune", *labelled.data, "-m", model, "-o", run, *flags, *more)
    said: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    first = json.loads((run / "trials" / "seed-0" / "metrics.json").read_text())
    return said | {"kmer_baseline": first["kmer_baseline"], "sizes": first["splits"]}


def row(name: str, labelled: Labelled, said: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line of the table."""
    one = next(iter(said.values()))
    sizes = " / ".join(f"{one['sizes'][split]['records']:,}" for split in ("train", "valid", "test"))
    baseline = one["kmer_baseline"]["splits"]["test"]["metrics"][labelled.metric]
    cells = [f"{baseline['value']:.3f} [{baseline['low']:.3f}, {baseline['high']:.3f}]"]
    for start in (FRESH, labelled.pretrained):
        if start is None or start not in said:
            cells.append("-")
            continue
        trials = said[start]["trials"].values()
        values = [trial["test"]["metrics"][labelled.metric]["value"] for trial in trials]
        cells.append(f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}")
    return [name, sizes, labelled.metric, *cells, labelled.published]


def main() -> None:
    """Make what is missing, in the order of the sets, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--starts", nargs="*", default=["pretrained", FRESH])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="write the table of what is there, run nothing")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, labelled in sets(args.runs).items():
        if args.only and name not in args.only:
            continue
        said = {}
        for kind in args.starts:
            start = labelled.pretrained if kind == "pretrained" else FRESH
            there = args.runs / f"{name.replace(' ', '-').replace('/', '-')}.{start}" / "metrics.json"
            if start and (there.exists() or not args.table):
                said[start] = finetuned(name, labelled, start, args.runs, args.threads)
        if said:
            rows.append(row(name, labelled, said))
    header = [
        "set",
        "train / valid / test",
        "metric",
        "k-mers",
        "from fresh weights",
        "pretrained here",
        "published",
    ]
    write_section("finetuning", table(header, rows))


if __name__ == "__main__":
    main()
