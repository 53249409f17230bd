#!/usr/bin/env bash
# pyfaidx 0.9.2.2 reads wrong bases from a FASTA record whose last line is longer than the lines before it.
#
# Every program that reads FASTA as a stream takes such a record: line breaks mean nothing in the format. An index of
# the .fai kind cannot describe it, since it has one line length per record.
# Expected: an error when the index is built, as htslib gives (pysam 0.24.1), and as pyfaidx itself gives for a line
#   that is longer in the middle of a record.
# What happens: pyfaidx indexes the record without a message, and reads across line breaks: a single position comes
#   back as two letters, positions behind it are shifted, and the last is empty. The whole record read at once is right.
#
# Output seen:
#   whole record: ACGTACGTAA
#   position 8:   'AA'
#   position 9:   ''
#   pysam:        refuses the file
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet pyfaidx==0.9.2.2 pysam==0.24.1
printf '>s\nACGT\nACGTAA\n' > long_last.fa
env/bin/python - <<'PYTHON'
import pysam
from pyfaidx import Fasta

sequence = Fasta("long_last.fa", as_raw=True)["s"]
whole = str(sequence[:])
print("whole record:", whole)
print("position 8:  ", repr(sequence[8]))
print("position 9:  ", repr(sequence[9]))
try:
    pysam.faidx("long_last.fa", "--fai-idx", "htslib.fai")
except pysam.SamtoolsError:
    refused = True
else:
    refused = False
print("pysam:       ", "refuses the file" if refused else "takes the file")
assert whole == "ACGTACGTAA"
assert (sequence[8], sequence[9]) != ("A", "A"), "pyfaidx reads the right bases now"
assert refused, "htslib takes the file now"
PYTHON
