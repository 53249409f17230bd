#!/usr/bin/env bash
# rich 15.0.0 prints the variant key chr1:100:A>G as chr1, a picture, A>G, also with markup=False.
#
# Keys of the form contig:position:change are common in logs of variant tools. Console.print takes words between
# colons as names of emoji, and "100" is one. markup=False turns off [bold] and the like, but not this.
# Expected: with markup=False the text is printed as it is.
# What happens: position 100 becomes a picture, position 101 stays. Console(emoji=False) keeps both.
#
# Output seen:
#   markup=False: 'chr1\U0001f4afA>G chr1:101:A>G\n'
#   emoji=False:  'chr1:100:A>G chr1:101:A>G\n'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet rich==15.0.0
env/bin/python - <<'PYTHON'
import io

from rich.console import Console

KEYS = "chr1:100:A>G chr1:101:A>G"


def printed(**options):
    out = io.StringIO()
    Console(file=out, width=80, **options).print(KEYS, markup=False)
    return out.getvalue()


print("markup=False:", ascii(printed()))
print("emoji=False: ", ascii(printed(emoji=False)))
assert printed() == "chr1\U0001f4afA>G chr1:101:A>G\n", "rich prints the key as it is now"
assert printed(emoji=False) == KEYS + "\n"
PYTHON
