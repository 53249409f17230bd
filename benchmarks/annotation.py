"""Time and memory to read an annotation of the size of the human one: 3,000,000 lines of GFF3.

python -m benchmarks.annotation [FOLDER]     (the file is made in FOLDER, 240 MB, and kept)
"""

import resource
import subprocess
import sys
import time
from pathlib import Path
from random import Random

GENES, CHOICES = 57_693, (("gene", "none"), ("mRNA", "exon"), ("CDS", "exon"), ("CDS", "none"))
_CONTIGS = 23


def write_annotation(path: Path) -> None:
    """Write genes with three transcripts each of eight exons, and as many parts of the coding sequence."""
    random = Random(0)
    with path.open("w") as out:
        out.write("##gff-version 3\n")
        for gene in range(GENES):
            start = random.randrange(1, 200_000_000)
            columns = f"chr{gene % _CONTIGS + 1}\tx\t{{}}\t{{}}\t{{}}\t.\t+\t.\t"
            out.write(columns.format("gene", start, start + 20_000))
            out.write(f"ID=gene{gene};gene_biotype=protein_coding;Name=G{gene}\n")
            for i in range(3):
                name = f"{gene}.{i}"
                out.write(columns.format("mRNA", start, start + 20_000))
                out.write(f"ID=rna{name};Parent=gene{gene};product=thing\n")
                for j in range(8):
                    where = start + 2_000 * j, start + 2_000 * j + 150
                    out.write(columns.format("exon", *where) + f"ID=exon{name}.{j};Parent=rna{name}\n")
                    out.write(columns.format("CDS", *where))
                    out.write(f"ID=cds{name};Parent=rna{name};product=thing%2C x\n")


def read_annotation(path: Path, kind: str, merge_parts: str) -> None:
    """Read the features of a kind, and print how many, the CPU time and the peak memory of this process."""
    from hyenacli.readers.annotation import read_features
    from hyenacli.readers.features import FeatureChoice
    from hyenacli.readers.text import open_binary

    base, start = _peak_mib(), time.process_time()
    with open_binary(path) as stream:
        features = read_features(stream, FeatureChoice((kind,), joined=merge_parts == "exon"))
    print(
        f"--feature {kind} --merge-parts {merge_parts}: {len(features):,} records, "
        f"{time.process_time() - start:.1f} s of CPU, peak {_peak_mib():.0f} MiB ({base:.0f} before)",
        flush=True,
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Read the file once for each choice, in a process of its own."""
    if len(sys.argv) == 4:
        read_annotation(Path(sys.argv[1]), *sys.argv[2:])
        return
    path = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "annotation.gff3"
    if not path.exists():
        write_annotation(path)
    for choice in CHOICES:
        command = [sys.executable, "-m", "benchmarks.annotation", str(path), *choice]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
