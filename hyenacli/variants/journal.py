"""Records scored in blocks, whose scores are kept beside an output until it is complete, to resume a run.

The journal has a sealed JSON document a line: what was computed and how, then a block of records each.
"""

import hashlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from hyenacli import __version__
from hyenacli.console import log
from hyenacli.errors import UserError
from hyenacli.readers.vcf import VariantRecord
from hyenacli.state_files import seal, sole_writer, unseal
from hyenacli.variants.haplotypes import AlleleReader
from hyenacli.variants.scorer import AlleleScore, ScoredRecord, VariantScorer
from hyenacli.variants.settings import ScoreVariantsSettings
from hyenadna import HyenaDNA, model_sha256

# Records scored together. Batches never reach across blocks, and shards consist of whole ones, so that a
# score does not depend, to the last digit, on where a run begins and ends.
BLOCK_RECORDS = 1024

_NEW = "remove it to begin again"
# Settings that change no score, only its destination, the speed, and which part of the input is read.
_NO_SCORE_SETTINGS = {
    *(
        "input",
        "output",
        "output_type",
        "heatmap",
        "report",
        "phased",
        "phase_span",
        "write_calibration",
        "no_version",
        "shard",
        "resume",
        "multiqc",
    ),
    *("batch_size", "device", "threads"),
}


def split_blocks(records: Iterable[VariantRecord], block_records: int) -> Iterator[list[VariantRecord]]:
    """Yield the records, `block_records` at a time."""
    rest = iter(records)
    while block := list(islice(rest, block_records)):
        yield block


def hash_block(block: Iterable[VariantRecord], resolve: Callable[[str], str | None] = str) -> str:
    """Return the sha256 of the lines of records, and of their contigs' names in the genome."""
    contigs = dict.fromkeys(record.contig for record in block)
    digest = hashlib.sha256(repr([resolve(contig) for contig in contigs]).encode())
    digest.update(b"\n".join(record.text for record in block))
    return digest.hexdigest()


def describe_run(settings: ScoreVariantsSettings, model: HyenaDNA) -> dict[str, str]:
    """Return version, command and model, which together give the scores."""
    return {
        "hyena_version": __version__,
        "hyena_command": _command_line(settings),
        "hyena_model": model_sha256(model),
    }


def _command_line(settings: ScoreVariantsSettings) -> str:
    """Return the command that gives these scores, whatever the process, the shard and the output file."""
    words = ["hyena", "score-variants", *([str(settings.input)] if settings.input else [])]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in _NO_SCORE_SETTINGS or value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        for item in value if isinstance(value, list) else [value]:
            words += [flag] if item is True else [flag, str(item)]
    return shlex.join(words)


def resume_identity(
    settings: ScoreVariantsSettings, run: dict[str, str], genome: str, shard: dict[str, Any]
) -> dict[str, Any]:
    """Return what an interrupted run and the one that goes on with it must have in common.

    Args:
        settings: of this run. What is done with a wrong REF changes no score. How contigs are named is part
            of the hash of each block, so that naming one that was not reached yet changes nothing.
        run: as `describe_run` gives it.
        genome: a fingerprint of the genome.
        shard: the part of the input, under "shard".
    """
    scoring = replace(settings, check_ref="w", contig_style="auto", contig_aliases=None)
    return {**run, "hyena_command": _command_line(scoring), "genome": genome, "shard": shard}


def score_records(
    records: Iterable[VariantRecord],
    reader: AlleleReader,
    scorer: VariantScorer,
    journal: "Journal",
    block_records: int = BLOCK_RECORDS,
) -> Iterator[ScoredRecord]:
    """Score records in blocks; each with one score per ALT, in order.

    Args:
        records: in memory a block at a time.
        reader: gives the variant of each ALT, or the status that says why it is not scored.
        scorer: the model.
        journal: has the scores of the blocks that an interrupted run finished, and gets those of the rest.
        block_records: records that are scored together.

    Raises:
        UserError: the records are not those that the interrupted run read.
    """
    for block in split_blocks(records, block_records):
        digest = hash_block(block, reader.resolve)
        scores = journal.take(digest)
        if scores is None:
            scores = list(scorer.score([allele for record in block for allele in reader.read(record)]))
            journal.add(digest, scores)
        rest = iter(scores)
        for record in block:
            yield record, list(islice(rest, len(record.alts)))


class Journal:
    """The blocks of an interrupted run in order, then those that are added.

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
        """Return the scores of the next block, None where it has still to be scored.

        A damaged block is dropped with all that follow it.

        Args:
            digest: of the block's records.

        Raises:
            UserError: the block in the file is another one.
        """
        if self._stream is None or not self.replaying:
            return None
        start = self._stream.tell()
        line = self._stream.readline()
        complete = line.endswith(b"\n")  # else the end of the file, or the line that was being written
        try:
            block = unseal(line[:-1] if complete else b"")
        except (ValueError, RecursionError):
            if complete:
                log.warning("%s is damaged: what it kept from byte %d on is scored again", self.path, start)
            self._stream.truncate(start)
            self._stream.seek(start)
            self.replaying = False
            return None
        if block["records_sha256"] != digest:
            what = "was made from other records than this input's, or with other names of contigs"
            raise UserError(what, at=self.path, remedy=_NEW)
        return [self._decode(*items) for items in block["scores"]]

    def add(self, digest: str, scores: Sequence[AlleleScore]) -> None:
        """Keep the scores of a block."""
        if self._stream is not None:
            block = {"records_sha256": digest, "scores": [self._encode(score) for score in scores]}
            self._stream.write(seal(block).encode() + b"\n")
            self._stream.flush()

    def _encode(self, score: AlleleScore) -> list[Any]:
        return [score.status, *(score.values[name] for name in self._names if score.values)]

    def _decode(self, status: str, *values: float) -> AlleleScore:
        return AlleleScore(status, dict(zip(self._names, values, strict=bool(values))))


@contextmanager
def output_lock(target: Path) -> Iterator[None]:
    """Refuse a second process that writes the same output, whose scores would be mixed with ours.

    Raises:
        UserError: another process is writing it.
    """
    lock = target.with_name(f".{target.name[:200]}.lock")
    with sole_writer(lock, target) if keeps_journal(target) else nullcontext():
        yield


@contextmanager
def open_journal(
    target: Path, identity: dict[str, Any], names: Sequence[str], *, resume: bool
) -> Iterator[Journal]:
    """Open the journal of an output; it is removed when the context ends well, and kept if not.

    Args:
        target: the output; stdout and what is not a regular file have no journal.
        identity: what the scores depend on besides the records.
        names: of the scores.
        resume: take over what an interrupted run has left.

    Raises:
        UserError: an interrupted run has left something and `resume` is not set, or it was another run.
    """
    path = target.with_name(f"{target.name}.unfinished")
    if not keeps_journal(target):
        yield Journal(path, None, names)
        return
    head = seal({"hyena": "scores of an unfinished run", **identity}).encode() + b"\n"
    _check(path, head, resume=resume)
    with path.open("r+b" if path.exists() else "w+b") as stream:
        if stream.readline() != head:
            stream.seek(0)
            stream.truncate()
            stream.write(head)
        try:
            yield Journal(path, stream, names)
        except BaseException:
            stream.flush()
            if path.stat().st_size > len(head):
                log.info("%s keeps what was scored, for the same command with --resume", path)
            else:
                path.unlink()
            raise
    path.unlink()


def keeps_journal(target: Path) -> bool:
    """Return whether the scores of an output are kept until it is complete: it is a regular file."""
    return str(target) != "-" and (target.is_file() or not target.exists())


def _check(path: Path, head: bytes, *, resume: bool) -> None:
    """Refuse to lose or to mix the scores of an interrupted run; a journal without a block is ignored."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        first, has_blocks = stream.readline(), stream.readline().endswith(b"\n")
    if not has_blocks:
        return
    if not resume:
        remedy = f"add --resume to go on with it, or {_NEW}"
        raise UserError("holds the scores of an interrupted run", at=path, remedy=remedy)
    if first == head:
        return
    try:
        old, new = unseal(first.removesuffix(b"\n")), unseal(head.removesuffix(b"\n"))
    except (ValueError, RecursionError):
        log.warning("%s is damaged: all that it kept is scored again", path)
        return
    name = next((name for name in new if old.get(name) != new[name]), "kind")
    what = f"was left by a run with another {name} ({old.get(name)}, not {new.get(name)})"
    raise UserError(what, at=path, remedy=_NEW)
