#!/usr/bin/env bash
# pyBigWig 0.3.29: the wheel on PyPI cannot be imported without numpy, which its metadata does not ask for.
#
# The module has a flag, pyBigWig.numpy, that says whether it was built with support for numpy arrays.
# Expected: pip installs what the wheel needs; or, as the flag suggests, the module works without numpy.
# What happens: no requirement is declared, pip installs pyBigWig alone, and the import fails with numpy's message. A
# tool that lists pyBigWig alone works only where something else brings numpy. List both.
#
# Output seen:
#   declared requirements: None
#   without numpy: ImportError: numpy._core.multiarray failed to import
#   with numpy: pyBigWig.numpy = 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet pyBigWig==0.3.29
env/bin/python - <<'PYTHON'
from importlib.metadata import requires

print("declared requirements:", requires("pyBigWig"))
assert not requires("pyBigWig"), "numpy is declared now"
try:
    import pyBigWig
except ImportError as error:
    print(f"without numpy: ImportError: {error}")
else:
    raise SystemExit("the module can be imported without numpy now")
PYTHON
env/bin/python -m pip install --quiet numpy==2.4.6
env/bin/python -c 'import pyBigWig; print("with numpy: pyBigWig.numpy =", pyBigWig.numpy)'
