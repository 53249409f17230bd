#!/usr/bin/env bash
# pybigtools 0.3.0 returns from write() without an exception where the iterator of values raises one.
#
# A bigWig is written from an iterator of (contig, start, end, value). Programs compute these values as they are
# taken, so that an error of theirs comes up inside write().
# Expected: write() raises the iterator's exception.
# What happens: a line and the traceback are printed, write() returns None, and the file that it leaves cannot be
# opened. The program goes on as if the file were there. Remember the exception in the iterator, and raise it again
# after write().
#
# Output seen:
#   write() returned None
#   opening the file: BBIReadError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet pybigtools==0.3.0
env/bin/python - 2>stderr.txt <<'PYTHON'
import pybigtools


def values():
    yield "chr1", 0, 10, 1.0
    yield "chr1", 10, 20, 2.0
    raise RuntimeError("the source ended early")


answer = pybigtools.open("values.bw", "w").write({"chr1": 1000}, values())
print("write() returned", answer)
assert answer is None
try:
    pybigtools.open("values.bw")
except pybigtools.BBIReadError as error:
    print("opening the file:", type(error).__name__)
else:
    raise SystemExit("the file can be opened now")
PYTHON
