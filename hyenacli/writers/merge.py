"""Shards joined into the file that one process would have written.

A shard says in itself which part of which run it is, under "shard" in its provenance: {"number": 1-based,
"of": how many, "records": of the whole input, "input_sha256": of these}. Names of files mean nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.names import abbreviate
from hyenacli.writers.shard_files import FORMATS, Head, sniff

# Settings that change no answer, and files of which the content is compared.
_FREE = {"output", "output_type", "shard", "batch_size", "device", "threads", "input", "model"}
_SHARD = {"number", "of", "records", "input_sha256"}


@dataclass(frozen=True)
class Joined:
    """What was joined.

    Attributes:
        shards: how many.
        records: of the whole input.
    """

    shards: int
    records: int


@dataclass(frozen=True)
class _Part:
    """A shard, looked at from outside."""

    path: Path
    kind: str
    head: Head

    @property
    def number(self) -> int:
        return int(self.head.provenance["shard"]["number"])


def merge_shards(paths: Sequence[Path], target: Path) -> Joined:
    """Join the shards of one run, in the order of the input whatever their own, into a file of their type.

    Args:
        paths: all shards of the run.
        target: what to write, `-` for stdout (TSV).

    Raises:
        UsageError: the target is one of the shards, or their type does not go to stdout.
        UserError: a file is no shard, one is missing or there twice, or they are not of one run.
    """
    parts = [_look(path) for path in paths]
    if str(target) != "-" and any(target.resolve() == path.resolve() for path in paths):
        raise UsageError("is one of the shards", at=target, remedy="write to another file")
    for part in parts[1:]:
        _check_like(parts[0], part)
    ordered = _in_order(parts)
    about = ordered[0].head.provenance
    FORMATS[ordered[0].kind].join([part.path for part in ordered], target, _of_the_whole(about, target))
    return Joined(len(parts), about["shard"]["records"])


def _of_the_whole(about: Mapping[str, Any], target: Path) -> dict[str, Any]:
    """The provenance that one process would have written."""
    whole = {name: value for name, value in about.items() if name != "shard"}
    if "settings" in whole:
        whole["settings"] = whole["settings"] | {"output": str(target), "shard": None}
    return whole


def _look(path: Path) -> _Part:
    kind = sniff(path)
    try:
        head = FORMATS[kind].head(path)
    except (OSError, ValueError, BadZipFile) as error:
        raise UserError(f"cannot be read as {kind}", at=path, remedy="make this shard again") from error
    if not set(head.provenance.get("shard", ())) >= _SHARD:
        raise UserError("is no shard", at=path, remedy="name files that were written with --shard i/n")
    return _Part(path, kind, head)


def _check_like(one: _Part, other: _Part) -> None:
    """Raise UserError, which names both and a difference, where two files are not of one run."""
    mine, its = _identity(one), _identity(other)
    names = [name for name in {**mine, **its} if mine.get(name) != its.get(name)]
    if names:
        said = f"{names[0]}: {_short(its.get(names[0]))} here, {_short(mine.get(names[0]))} in {one.path}"
        raise UserError(said, at=other.path, remedy="make all shards in the same way, from the same input")


def _identity(part: _Part) -> dict[str, object]:
    """What all shards of a run have in common, by the names that a message may call it."""
    about = dict(part.head.provenance)
    shard, settings = about.pop("shard"), about.pop("settings", {})
    about |= {name: value for name, value in settings.items() if name not in _FREE}
    about |= {"shards": shard["of"], "records": shard["records"], "input": shard["input_sha256"]}
    return {"type": part.kind, **about, "columns": part.head.columns}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 or " " in text else f"{text[:8]}..."


def _in_order(parts: Sequence[_Part]) -> list[_Part]:
    """The parts by number; UserError where one is there twice or not at all."""
    by_number: dict[int, _Part] = {}
    for part in parts:
        if part.number in by_number:
            raise UserError(
                f"is shard {part.number}, and so is {by_number[part.number].path}",
                at=part.path,
                remedy="name each once",
            )
        by_number[part.number] = part
    of = parts[0].head.provenance["shard"]["of"]
    if missing := [str(number) for number in range(1, of + 1) if number not in by_number]:
        raise UserError(f"of {of} shards these are missing: {abbreviate(missing)}", remedy="name all of them")
    return [by_number[number] for number in sorted(by_number)]
