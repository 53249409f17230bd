"""Run directories made by the command, once: what is there is not made again, what was cut short goes on."""

import subprocess
import sys
from pathlib import Path


def hyena(*arguments: object) -> None:
    """Run the command, showing what a user would type."""
    print(f"\n$ hyena {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([sys.executable, "-m", "hyenacli", *map(str, arguments)], check=True)


def made(run: Path, *arguments: object) -> Path:
    """The run directory of a verb that trains; `-o RUN` is put behind the arguments."""
    if not (run / "report.html").exists():
        hyena(*arguments, "-o", run, *(["--resume"] if (run / "config.yaml").exists() else []))
    return run
