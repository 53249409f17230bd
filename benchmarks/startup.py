"""Process time of the help pages beside a bare interpreter and beside importing the option parser.

Run with `make bench`. Every round starts each command once, so that a busy moment hits all alike.
"""

import os
import statistics
import subprocess
import sys

from benchmarks.results import table, write_section

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import typer, rich": ["-c", "import typer, rich.table"],
    "hyena --version": ["-m", "hyenacli", "--version"],
    "hyena --help": ["-m", "hyenacli", "--help"],
    "hyena embed --help": ["-m", "hyenacli", "embed", "--help"],
    "hyena doctor --help": ["-m", "hyenacli", "doctor", "--help"],
    "hyena pretrain --help": ["-m", "hyenacli", "pretrain", "--help"],
}


def process_seconds(arguments: list[str]) -> float:
    """User and system seconds of one interpreter with these arguments."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure, print and write median process time, spread, and the ratio to the bare interpreter."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            times[name].append(process_seconds(arguments))
    base = statistics.median(times["python -c pass"])
    rows = []
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        rows.append([f"`{name}`", f"{middle:.2f}", spread, f"{middle / base:.0f}"])
    text = table(("command", "median s", "least-most", "ratio to `python -c pass`"), rows)
    title = f"## Start-up (`make bench`): process time, {ROUNDS} interleaved rounds"
    write_section("startup", f"{title}\n\n{text}")


if __name__ == "__main__":
    main()
