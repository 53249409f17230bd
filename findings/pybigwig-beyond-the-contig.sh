#!/usr/bin/env bash
# pyBigWig 0.3.29 writes an interval that ends beyond its contig, and cannot read its values afterwards.
#
# The header of a bigWig holds the length of every contig, and addEntries() checks that entries are sorted.
# Expected: an interval that ends after its contig is refused.
# What happens: it is written without a word. intervals() gives it back with its end beyond the contig; values()
# of that same interval fails, and asked for the whole contig it gives the part inside. A track made for another
# assembly is found out only by the reader. Compare ends with the lengths before writing.
#
# Output seen:
#   contigs: {'chr1': 100}
#   intervals: ((90, 150, 1.0),)
#   values(90, 150): Invalid interval bounds!
#   values(0, 100): 10 bases have a value
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet pyBigWig==0.3.29 numpy==2.4.6
env/bin/python - <<'PYTHON'
import math

import pyBigWig

track = pyBigWig.open("track.bw", "w")
track.addHeader([("chr1", 100)])
track.addEntries(["chr1"], [90], ends=[150], values=[1.0])
track.close()
track = pyBigWig.open("track.bw")
print("contigs:", track.chroms())
print("intervals:", track.intervals("chr1"))
assert track.intervals("chr1") == ((90, 150, 1.0),), "the interval is not as it was written"
try:
    track.values("chr1", 90, 150)
except RuntimeError as error:
    print("values(90, 150):", error)
else:
    raise SystemExit("values of the interval can be read now")
inside = sum(not math.isnan(value) for value in track.values("chr1", 0, 100))
print("values(0, 100):", inside, "bases have a value")
assert inside == 10
PYTHON
