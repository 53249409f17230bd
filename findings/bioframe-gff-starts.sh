#!/usr/bin/env bash
# bioframe 0.8.0 reads the starts of a GFF as they are, and takes them for starts of half-open intervals from 0.
#
# read_table(..., schema="gff") names the columns of a GFF, chrom, start and end as everywhere in bioframe, whose
# operations are on half-open intervals that count from 0. GFF counts from 1 and includes the end.
# Expected: starts are one less than in the file, or the frame is no "bedframe".
# What happens: starts stay, is_bedframe() says True, every feature is a base shorter, and overlap() does not find a
# feature at its first base. Subtract 1 from `start` after reading a GFF or GTF.
#
# Output seen:
#   is_bedframe: True
#   bases of a feature from 101 to 200: 99
#   features at its first base (half-open, 100-101): 0
#   features there after start -= 1: 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet bioframe==0.8.0 pandas==3.1.1
printf 'chr1\t.\tgene\t101\t200\t.\t+\t.\tID=a\n' > genes.gff3
env/bin/python - <<'PYTHON'
import bioframe
import pandas

genes = bioframe.read_table("genes.gff3", schema="gff")[["chrom", "start", "end"]]
base = pandas.DataFrame({"chrom": ["chr1"], "start": [100], "end": [101]})


def features():
    return len(bioframe.overlap(base, genes, how="inner"))


print("is_bedframe:", bioframe.is_bedframe(genes))
bases = int((genes.end - genes.start).iloc[0])
print("bases of a feature from 101 to 200:", bases)
before = features()
print("features at its first base (half-open, 100-101):", before)
genes["start"] -= 1
after = features()
print("features there after start -= 1:", after)
assert (bases, before, after) == (99, 0, 1), "starts are converted now"
PYTHON
