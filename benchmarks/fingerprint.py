"""Hashes of what every verb makes of the demo's data, to show that a change of structure changes no result.

    python -m benchmarks.fingerprint --record before.json
    python -m benchmarks.fingerprint --compare before.json

Processors round differently, so both runs belong on one machine. Hashed are tensors, table values, VCF lines
and metrics; left out are times, versions and the layout of containers.
"""

import argparse
import csv
import hashlib
import json
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from benchmarks.results import ROOT

VOLATILE = ("second", "wait")
"""Words in the names of numbers that differ from run to run."""
TINY = "--max-steps 20 --global-batch-size 8 --micro-batch-size 8 --eval-every 10 --eval-windows 16"
LABELS = "-f genome.fa --label-column name --test-groups heldout"
RUNS = f"""
pretrain genome.fa {TINY} --d-model 32 --max-length 256 --valid-contigs heldout -o run
pretrain genome.fa {TINY} --d-model 32 --max-length 256 --valid-contigs heldout -o warmed
  --length-warmup auto --rc-augment --seed 3
pretrain genome.fa other.fa -o continued --init-from run --max-steps 4 --global-batch-size 4 --eval-windows 4
evaluate genome.fa -m run -o context.tsv --contigs heldout --max-windows 16
embed regions.bed -f genome.fa -m run -o mean.npz
embed regions.bed -f genome.fa -m run -o concat.parquet --rc concat --layer all --flank 30 --stranded
embed few.fa -m run -o windows.tsv --pool max --window 100 --stride 50
embed few.fa -m run -o bases.h5 --pool none
score-variants variants.vcf -f genome.fa -m run -o scored.vcf
score-variants variants.vcf -f genome.fa -m run -o four.tsv --score llr,site,cosine,l2 --downstream 64
score-variants variants.vcf -f genome.fa -m run -o forward.parquet --rc none --grid 1 --window 128
score-variants variants.vcf -f genome.fa -m run -o part1.tsv --shard 1/2
score-variants variants.vcf -f genome.fa -m run -o part2.tsv --shard 2/2
merge part1.tsv part2.tsv -o joined.tsv
score-variants --all-snvs -r heldout:5501-5540 -f genome.fa -m run -o snvs.tsv
finetune kinds.bed {LABELS} -m run -o full -b 16 --epochs 2 --lr 1e-3 --calibrate --rc mean --rc-augment
finetune kinds.bed {LABELS} -m run -o lora -b 16 --method lora --epochs 1 --no-baseline
finetune kinds.bed {LABELS} -m run -o prompt -b 16 --method soft-prompt --epochs 1 --no-baseline
finetune kinds.bed {LABELS} -m run -o head -b 16 --method head --class-weights balanced --epochs 3
  --no-baseline
finetune kinds.bed {LABELS} -m run -o solved --method head --solver sklearn --no-baseline
finetune kinds.bed {LABELS} -m run -o letters -b 8 --method icl --shots 1 --epochs 1 --max-length 40
  --no-baseline
finetune numbers.csv -m run -o numbers --task regression --epochs 1 -b 16 --lr 1e-3 --no-baseline
finetune several.csv -m run -o several --label-column a --label-column b --task multilabel --epochs 1 -b 16
finetune bases.csv -m run -o bases --level nucleotide --epochs 1 -b 16 --lr 1e-3 --valid-fraction 0.2
finetune two.csv -m run -o folds --folds 3 --epochs 1 -b 16 --sweep lr=1e-3,1e-2 --no-baseline
predict regions.bed -f genome.fa -m full -o predicted.tsv
predict few.fa -m numbers -o predicted.parquet
predict few.fa -m bases -o predicted.bedgraph
classify-species train --species a=genome.fa --species b=other.fa -m run -o species {TINY}
classify-species evaluate species --windows 10 -o lengths.tsv --no-baseline
classify-species predict other.fa -m species -o contigs.tsv --per-window windows.parquet --top 2
models convert run hf --to hf
models convert run official --to official
models convert lora whole --to native
"""
"""What is run in one folder, one after the other; later runs read what earlier ones wrote."""


def digest(data: bytes) -> str:
    """A short hash."""
    return hashlib.sha256(data).hexdigest()[:16]


def write_inputs(folder: Path) -> None:
    """Write the demo's genomes, regions and variants, and labelled tables made of the regions."""
    demo = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    for name in ("write_genome", "write_other", "write_variants"):
        demo[name](folder)
    contigs: dict[str, str] = {}
    for record in (folder / "genome.fa").read_text().split(">")[1:]:
        name, *lines = record.splitlines()
        contigs[name] = "".join(lines)
    for name, every in (("regions.bed", 40), ("kinds.bed", 8)):
        (folder / name).write_text("".join((folder / name).read_text().splitlines(keepends=True)[::every]))
    rows = [line.split("\t") for line in (folder / "kinds.bed").read_text().splitlines()]
    sequences = [contigs[contig][int(start) : int(end)][:200] for contig, start, end, _ in rows]
    (folder / "few.fa").write_text("".join(f">r{i}\n{bases}\n" for i, bases in enumerate(sequences[:20])))
    shares = [sum(base in "GC" for base in bases) / len(bases) for bases in sequences]
    tables = {
        "numbers.csv": ("sequence,label", [f"{s},{x:.4f}" for s, x in zip(sequences, shares, strict=True)]),
        "two.csv": ("sequence,label", [f"{s},{x > 0.5}" for s, x in zip(sequences, shares, strict=True)]),
        "several.csv": (
            "sequence,a,b",
            [f"{s},{int(x > 0.5)},{int('AAA' in s)}" for s, x in zip(sequences, shares, strict=True)],
        ),
        "bases.csv": (
            "sequence,label",
            [f"{s},{''.join('1' if base in 'GC' else '0' for base in s)}" for s in sequences],
        ),
    }
    for name, (header, lines) in tables.items():
        (folder / name).write_text("\n".join([header, *lines]) + "\n")


def run(folder: Path, command: str) -> None:
    """Run a command of the tool in this process and in a folder.

    Raises:
        SystemExit: it failed.
    """
    from hyenacli.app import app

    os.chdir(folder)
    flags = [] if command.startswith(("merge", "models")) else ["-@", "1", "--device", "cpu"]
    try:
        app([*command.split(), *flags, "-q"], prog_name="hyena")
    except SystemExit as end:
        if end.code:
            raise SystemExit(f"failed: hyena {command}") from None


def hashes(path: Path) -> Iterator[tuple[str, str]]:
    """What a file holds, as names and hashes; nothing for a file that says how rather than what."""
    if path.name == "metrics.json":
        for key, value in json.loads(path.read_text()).items():
            if key != "model_sha256" and not volatile(key):
                yield f":{key}", digest(json.dumps(value, sort_keys=True).encode())
        return
    for suffix, contents in CONTENTS.items():
        if path.name.endswith(suffix):
            yield "", digest(contents(path))
            return


def volatile(name: str) -> bool:
    """Whether a number of this name differs from run to run."""
    return any(word in name for word in VOLATILE)


def metrics(path: Path) -> bytes:
    """The numbers of a training run's steps."""
    with path.open() as stream:
        rows = [{k: v for k, v in row.items() if not volatile(k)} for row in csv.DictReader(stream)]
    return json.dumps(rows).encode()


def lines(path: Path) -> bytes:
    """The lines of a text file that do not say how it was made."""
    kept = [line for line in path.read_bytes().splitlines() if not line.startswith((b"##hyena", b"#hyena"))]
    return b"\n".join(kept)


def columns(path: Path) -> bytes:
    """The values of a Parquet table."""
    return json.dumps(parquet.read_table(path).to_pydict(), default=str).encode()


def arrays(path: Path) -> bytes:
    """The arrays of an npz file."""
    with np.load(path) as table:
        return b"".join(table[key].tobytes() for key in sorted(table) if key != "hyena")


def embeddings(path: Path) -> bytes:
    """The vectors of an HDF5 file."""
    with h5py.File(path) as file:
        values: bytes = file["embedding"][:].tobytes()
    return values


def tensors(path: Path) -> bytes:
    """The tensors of a checkpoint, in the order of their names."""
    if path.suffix == ".safetensors":
        values = load_file(path)
    else:
        values = torch.load(path, weights_only=True)["state_dict"]
    return b"".join(
        part
        for name in sorted(values)
        for part in (name.encode(), values[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    )


CONTENTS: dict[str, Callable[[Path], bytes]] = {
    ".safetensors": tensors,
    "weights.ckpt": tensors,
    "metrics.csv": metrics,
    ".parquet": columns,
    ".npz": arrays,
    ".h5": embeddings,
    ".tsv": lines,
    ".vcf": lines,
    ".bedgraph": lines,
    ".bed": lines,
}


def fingerprint() -> dict[str, str]:
    """Run everything in a fresh folder; the hashes of what it leaves, by path."""
    made: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        data = folder / "data"
        data.mkdir()
        write_inputs(data)
        inputs = set(data.iterdir())
        for command in RUNS.strip().replace("\n  ", " ").splitlines():
            print(f"hyena {command}", file=sys.stderr, flush=True)
            run(data, command)
        for path in sorted(data.rglob("*")):
            if path.is_file() and path not in inputs:
                made |= {f"{path.relative_to(data)}{part}": value for part, value in hashes(path)}
        os.chdir(ROOT)
    return made


def main() -> None:
    """Record the hashes, or compare them with recorded ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--record", type=Path, metavar="JSON")
    way.add_argument("--compare", type=Path, metavar="JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = arguments.record and arguments.record.resolve()
    before: dict[str, str] = {} if record else json.loads(arguments.compare.read_text())
    now = fingerprint()
    if record:
        record.write_text(json.dumps(now, indent=1) + "\n")
        print(f"{len(now)} hashes in {record}")
        return
    differing = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    for name in differing:
        print(f"{name}: {before.get(name, 'missing')} before, {now.get(name, 'missing')} now")
    print(f"{len(now)} hashes, {len(differing)} differ")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
