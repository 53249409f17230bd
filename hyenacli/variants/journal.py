"""Scores kept beside an output until it is whole, so that an interrupted run can go on.

The file has one JSON document a line: what was computed and how, then a block of records each.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hyenacli.errors import UserError
from hyenacli.variants.scorer import AlleleScore

_logger = logging.getLogger("hyena")
_NEW = "remove it to begin again"


class Journal:
    """The blocks of an interrupted run in order, then room for more.

    Args:
        path: what messages call the file.
        stream: the file, after its first line; None keeps nothing.
        names: of the scores.

    Attributes:
        replaying: whether there may be blocks that were scored before.
    """

    def __init__(self, path: Path, stream: BinaryIO | None, names: Sequence[str]):
        self.path, self._stream, self._names = path, stream, names
        self.replaying = stream is not None

    def take(self, digest: str) -> list[AlleleScore] | None:
        """The answers of the next block, None where it has still to be scored.

        Args:
            digest: of the block's records.

        Raises:
            UserError: the block in the file is another one.
        """
        if self._stream is None or not self.replaying:
            return None
        place = self._stream.tell()
        line = self._stream.readline()
        if not line.endswith(b"\n"):  # the end, or a line that was cut short
            self._stream.truncate(place)
            self._stream.seek(place)
            self.replaying = False
            return None
        block = json.loads(line)
        if block["records_sha256"] != digest:
            what = "was made from other records than this input's"
            raise UserError(what, at=self.path, remedy=_NEW)
        return [self._score(*answer) for answer in block["scores"]]

    def add(self, digest: str, scores: Sequence[AlleleScore]) -> None:
        """Keep the answers of a block."""
        if self._stream is not None:
            block = {"records_sha256": digest, "scores": [self._answer(score) for score in scores]}
            self._stream.write(json.dumps(block, separators=(",", ":")).encode() + b"\n")
            self._stream.flush()

    def _answer(self, score: AlleleScore) -> list[Any]:
        return [score.status, *(score.values[name] for name in self._names if score.values)]

    def _score(self, status: str, *values: float) -> AlleleScore:
        return AlleleScore(status, dict(zip(self._names, values, strict=bool(values))))


@contextmanager
def open_journal(
    target: Path, about: dict[str, Any], names: Sequence[str], *, resume: bool
) -> Iterator[Journal]:
    """The journal of an output; gone when the context ends well, and left behind with what it holds if not.

    Args:
        target: the output; none is kept for stdout and for what is no regular file.
        about: what the scores depend on besides the records.
        names: of the scores.
        resume: take over what an interrupted run has left.

    Raises:
        UserError: an interrupted run has left something and `resume` is not set, or it was another run.
    """
    path = target.with_name(f"{target.name}.unfinished")
    if str(target) == "-" or (target.exists() and not target.is_file()):
        yield Journal(path, None, names)
        return
    head = json.dumps({"hyena": "scores of an unfinished run", **about}, sort_keys=True).encode() + b"\n"
    _check(path, head, resume=resume)
    with path.open("r+b" if path.exists() else "w+b") as stream:
        if stream.readline() != head:
            stream.seek(0)
            stream.truncate()
            stream.write(head)
        journal = Journal(path, stream, names)
        try:
            yield journal
        except BaseException:
            stream.flush()
            if path.stat().st_size > len(head):
                _logger.info("%s keeps what was scored, for the same command with --resume", path)
            else:
                path.unlink()
            raise
    path.unlink()


def _check(path: Path, head: bytes, *, resume: bool) -> None:
    """Refuse to lose or to mix the scores of an interrupted run; one that got nowhere is nothing."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        first, has_blocks = stream.readline(), stream.readline().endswith(b"\n")
    if not has_blocks:
        return
    if not resume:
        remedy = f"add --resume to go on with it, or {_NEW}"
        raise UserError("holds the scores of an interrupted run", at=path, remedy=remedy)
    if first != head:
        raise UserError(f"was left by a run {_difference(first, head)}", at=path, remedy=_NEW)


def _difference(first: bytes, head: bytes) -> str:
    """In which setting an interrupted run was another one."""
    new = json.loads(head)
    try:
        old = json.loads(first)
        name = next(name for name in new if old.get(name) != new[name])
    except (ValueError, AttributeError, StopIteration):
        return "of another kind"
    return f"with another {name} ({old.get(name)}, not {new[name]})"
