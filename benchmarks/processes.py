"""Timing in processes of their own: peak memory belongs to a process, and so does a warm allocator.

`python -m benchmarks.processes MODULE CASE PATH CALLS` makes one measurement and prints it as JSON.
"""

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Work = Callable[[], object]


@dataclass
class Timing:
    """What one path of a case took: seconds of every timed call, and the largest peak memory in bytes."""

    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def median(self) -> float:
        """The median call."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self.seconds):.3g}-{max(self.seconds):.3g})"

    @property
    def gib(self) -> str:
        """Peak memory."""
        return f"{self.peak / 2**30:.2f}"


def interleave(
    module: str, case: str, paths: Sequence[str], *, rounds: int, calls: int, base: str | None = None
) -> dict[str, Timing]:
    """Time the paths of a case in turns, each turn in a fresh process.

    Args:
        module: module of this package whose CASES[case][path] makes the work to time.
        case: the case.
        paths: which paths.
        rounds: turns of each path.
        calls: timed calls in a turn; from two on an untimed one comes first.
        base: folder of another build, whose `hyenadna` the path "base" times.
    """
    timings = {path: Timing() for path in paths}
    for _ in range(rounds):
        for path, timing in timings.items():
            command = [sys.executable, "-m", "benchmarks.processes", module, case, path, str(calls)]
            models = {"PYTHONPATH": f"{base}/models"} if path == "base" else {}
            environment = {**os.environ, **models}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found = json.loads(done.stdout)
            timing.seconds += found["seconds"]
            timing.peak = max(timing.peak, found["peak"])
    shown = "; ".join(f"{path} {timing} s, {timing.gib} GiB" for path, timing in timings.items())
    print(f"{case}: {shown}", file=sys.stderr, flush=True)
    return timings


def main(module: str, case: str, path: str, calls: int) -> None:
    """Make the work, do it, print the seconds it took and the peak memory of this process."""
    work: Work = importlib.import_module(module).CASES[case][path]()
    if calls > 1:
        work()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
