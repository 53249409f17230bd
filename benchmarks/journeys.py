"""Count the files that a base, a variant and a labelled row pass through on their way to a result.

    python -m benchmarks.journeys [--files]

A file counts when one of its functions is called; imports and class bodies do not count. The counts say how
much of the source a newcomer has to open to follow one record.
"""

import inspect
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks.fingerprint import run, write_inputs
from benchmarks.results import ROOT

JOURNEYS = {
    "a base into a loss": "pretrain genome.fa -o first --d-model 8 --max-length 64 --max-steps 2",
    "a VCF record into a line": "score-variants three.vcf -f genome.fa -m first -o scored.vcf",
    "a labelled row into metrics.json": "finetune sixty.csv -m first -o tuned --epochs 1 -b 16",
}
ROOMS = (ROOT / "hyenacli", ROOT / "models" / "hyenadna")


@contextmanager
def recorded_calls() -> Iterator[set[tuple[str, str]]]:
    """Record (calling file, called file) of every function call of this project's source."""
    arrows: set[tuple[str, str]] = set()
    rooms = tuple(f"{room}{os.sep}" for room in ROOMS)

    def record(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # Module and class bodies have no optimised locals.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(rooms):
            caller = frame.f_back.f_code.co_filename if frame.f_back else ""
            arrows.add((caller, code.co_filename))

    threading.setprofile(record)
    sys.setprofile(record)
    try:
        yield arrows
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def main() -> None:
    """Print the counts, and the files with --files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        write_inputs(folder)
        lines = (folder / "variants.vcf").read_text().splitlines(keepends=True)
        header = [line for line in lines if line.startswith("#")]
        (folder / "three.vcf").write_text("".join(lines[: len(header) + 3]))
        rows = (folder / "two.csv").read_text().splitlines(keepends=True)
        (folder / "sixty.csv").write_text("".join(rows[:61]))
        for journey, command in JOURNEYS.items():
            with recorded_calls() as arrows:
                run(folder, command)
            files = sorted({called for _, called in arrows})
            pairs = {(caller, called) for caller, called in arrows if caller != called and caller in files}
            print(f"{journey}: {len(files)} files, {len(pairs)} pairs of calling and called file")
            if "--files" in sys.argv:
                print("".join(f"  {Path(file).relative_to(ROOT)}\n" for file in files), end="")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
