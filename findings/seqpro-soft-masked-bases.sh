#!/usr/bin/env bash
# seqpro 0.23.0 reverses lower-case bases without complementing them, and encodes them as no base at all.
#
# Genomes of UCSC and Ensembl come soft-masked: about half of the human one is lower-case, and is DNA like the rest.
# Expected: the complement in lower or upper case, as Biopython 1.88 gives, or an error.
# What happens: `reverse_complement` moves lower-case letters to their mirrored places unchanged, so that the result is
#   neither strand. `ohe` gives them a row of zeros, as N, and `gc_content` counts no lower-case G or C. No message.
#
# Output seen:
#   reverse complement of acgtAACG: CGTTtgca, where acgt is right
#   one-hot rows that are empty:    4 of 8
#   GC content:                     0.25, of ACGTAACG 0.50
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet seqpro==0.23.0 biopython==1.88
env/bin/python - <<'PYTHON'
import seqpro
from Bio.Seq import Seq

masked = "acgtAACG"
reverse = seqpro.reverse_complement(masked, seqpro.DNA).tobytes().decode()
right = str(Seq(masked).reverse_complement())
print(f"reverse complement of {masked}: {reverse}, where {right[4:]} is right")
empty = int((seqpro.ohe(masked, seqpro.DNA).sum(-1) == 0).sum())
print(f"one-hot rows that are empty:    {empty} of {len(masked)}")
share, whole = float(seqpro.gc_content(masked)), float(seqpro.gc_content(masked.upper()))
print(f"GC content:                     {share:.2f}, of {masked.upper()} {whole:.2f}")
assert right == "CGTTacgt"
assert reverse == "CGTTtgca", "lower-case bases are complemented now"
assert empty == 4, "lower-case bases are encoded now"
assert share < whole, "lower-case G and C are counted now"
PYTHON
