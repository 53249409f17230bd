"""Counts of a run over records: a progress bar while it lasts, one line and one event at its end."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from hyenacli import console
from hyenacli.console import log
from hyenacli.inference.embedding import Embedded
from hyenacli.inference.prediction import Predicted

Answer = TypeVar("Answer", Embedded, Predicted)


class RunSummary:
    """Counts of records by status, and of bases.

    Args:
        verb: of the command, as embed.
        doing: shown beside the bar, as embedding.
        done: begins the last line, as embedded.
    """

    def __init__(self, verb: str, doing: str, done: str) -> None:
        self.verb, self.doing, self.done = verb, doing, done
        self.statuses: Counter[str] = Counter()
        self.bases = 0
        self.start = time.monotonic()

    def watch(self, answers: Iterable[Answer], total: int | None) -> Iterator[Answer]:
        """Pass answers on, count them and show the progress.

        Args:
            answers: one per record.
            total: number of records, if it is known.
        """
        with console.progress("{task.completed} records", "{task.fields[speed]} bases/s") as bar:
            task = bar.add_task(self.doing, total=total, speed="")
            for answer in answers:
                yield answer
                self.statuses[answer.record.status] += 1
                self.bases += len(answer.record) if answer.n_bases else 0
                bar.update(task, advance=1, speed=f"{self.bases / (time.monotonic() - self.start):,.0f}")

    def report(self, destination: str) -> None:
        """Log how many records are done, and how many are not, by status.

        Args:
            destination: where the output is, as "to peaks.tsv".
        """
        seconds = time.monotonic() - self.start
        done = self.statuses.pop("OK", 0)
        failed = "".join(f", {count:,} {status}" for status, count in self.statuses.most_common())
        counts = f"{console.counted(done, 'record')}{failed}: {console.counted(self.bases, 'base')}"
        log.info("%s %s in %.1f s, %s", self.done, counts, seconds, destination)
        console.event(
            self.verb, records=done, failed=dict(self.statuses), bases=self.bases, seconds=round(seconds, 3)
        )
