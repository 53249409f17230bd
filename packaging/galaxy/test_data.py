"""Write the files that the tests of the Galaxy tools read.

`python packaging/galaxy/test_data.py`, in an environment with hyena.
"""

import random
import shutil
import subprocess
import tempfile
from pathlib import Path

DATA = Path(__file__).parent / "test-data"


def main() -> None:
    """Make sequences, variants, and a tiny model and classifier in test-data/."""
    DATA.mkdir(exist_ok=True)
    bases = random.Random(1)
    sequences = {name: "".join(bases.choices("ACGT", k=600)) for name in ("first", "second")}
    fasta = DATA / "sequences.fa"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
    reference = sequences["first"][299]
    alternate = "C" if reference == "A" else "A"
    lines = [
        "##fileformat=VCFv4.2",
        "##contig=<ID=first,length=600>",
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
        f"first\t300\t.\t{reference}\t{alternate}\t.\t.\t.",
    ]
    (DATA / "variants.vcf").write_text("\n".join(lines) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        model, classifier, table = (Path(folder) / name for name in ("model", "classifier", "labelled.tsv"))
        size = "--d-model 8 --n-layer 1 --max-length 128 --max-steps 2 --global-batch-size 2 -q -@ 1"
        hyena(f"pretrain {fasta} -o {model} {size}")
        rows = [f"{''.join(bases.choices('ACGT', k=60))}\t{label}\n" for label in ("a", "b") * 20]
        table.write_text("sequence\tlabel\n" + "".join(rows))
        hyena(f"finetune {table} -m {model} -o {classifier} --method head --epochs 1 -q -@ 1")
        for run in (model, classifier):
            shutil.make_archive(str(DATA / run.name), "zip", run / "checkpoints" / "best")


def hyena(arguments: str) -> None:
    """Run one command of hyena."""
    subprocess.run(["hyena", *arguments.split()], check=True)


if __name__ == "__main__":
    main()
