"""Process time of the help pages beside a bare interpreter and beside importing the option parser.

Run with `make bench`. Every round starts each command once, so that a busy moment hits all alike.
"""

import os
import statistics
import subprocess
import sys

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import typer, rich": ["-c", "import typer, rich.table"],
    "hyena --version": ["-m", "hyenacli", "--version"],
    "hyena --help": ["-m", "hyenacli", "--help"],
    "hyena embed --help": ["-m", "hyenacli", "embed", "--help"],
    "hyena pretrain --help": ["-m", "hyenacli", "pretrain", "--help"],
}


def process_seconds(arguments: list[str]) -> float:
    """User and system seconds of one interpreter with these arguments."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Print median process time, spread, and the ratio to the bare interpreter."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            times[name].append(process_seconds(arguments))
    base = statistics.median(times["python -c pass"])
    print(f"{'command':24}{'median s':>10}{'min s':>8}{'max s':>8}{'ratio':>8}")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:24}{middle:10.3f}{min(seconds):8.3f}{max(seconds):8.3f}{middle / base:8.1f}")


if __name__ == "__main__":
    main()
