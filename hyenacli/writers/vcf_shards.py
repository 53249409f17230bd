"""Shards of VCF and BCF files: what one says of itself, and how several become one."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pysam

from hyenacli.errors import UsageError, UserError
from hyenacli.readers.bcf import quiet_htslib
from hyenacli.readers.streams import open_binary
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.bgzip import remove_indexes
from hyenacli.writers.variant_sink import open_sink

_OURS, _MARK = "##hyena_", "##hyena_shard="
_COPIED = 1 << 20


def shard_line(shard: Mapping[str, Any]) -> str:
    """The header line of a shard, which joining takes out."""
    return f"{_MARK}{json.dumps(shard, sort_keys=True)}"


def provenance_of(lines: Sequence[str]) -> dict[str, Any]:
    """What the tool's own header lines say, the shard under "shard" where it is one.

    >>> provenance_of(["##a=b", "##hyena_version=1", '##hyena_shard={"number": 2}'])
    {'hyena_version': '1', 'shard': {'number': 2}}
    """
    own: dict[str, Any] = dict(
        line[2:].split("=", 1) for line in lines if line.startswith(_OURS) and "=" in line
    )
    shard = own.pop("hyena_shard", None)
    return {**own, "shard": json.loads(shard)} if shard else own


def _others(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith(_OURS)]


def read_vcf_head(path: Path) -> tuple[list[str], dict[str, Any]]:
    """The lines of the header that are not the tool's own, and what those say."""
    with open_binary(path) as stream:
        lines = [line.decode(errors="replace").rstrip("\r\n") for line in _header(stream)]
    return _others(lines), provenance_of(lines)


def read_bcf_head(path: Path) -> tuple[list[str], dict[str, Any]]:
    """The same of a BCF file, but for what was declared because the shard uses it."""
    with quiet_htslib(), pysam.VariantFile(str(path)) as file:
        lines = str(file.header).splitlines()
    return _others(lines)[-1:], provenance_of(lines)


def _header(stream: BinaryIO) -> Iterator[bytes]:
    for line in stream:
        yield line
        if not line.startswith(b"##"):
            return


def join_vcf(paths: Sequence[Path], target: Path, kind: str) -> None:
    """Write the lines of VCF shards as one file; a vcf.gz gets an index.

    Raises:
        UserError: there are fewer records than were shared.
    """
    with open_binary(paths[0]) as stream:
        above = [line for line in _header(stream) if not line.startswith(_MARK.encode())]
    shards = [read_vcf_head(path)[1]["shard"] for path in paths]
    counts = []
    with open_sink(target, kind, above) as write:
        for path in paths:
            with open_binary(path) as stream:
                deque(_header(stream), maxlen=0)
                counts.append(0)
                while data := stream.read(_COPIED):
                    counts[-1] += data.count(b"\n")
                    write(data)
        records = shards[0]["records"]
        # a VCF has no place for a mark at its end
        if sum(counts) != records and all(shard["every_record"] for shard in shards):
            found = ", ".join(f"{path} has {count:,}" for path, count in zip(paths, counts, strict=True))
            what = f"one of the shards is cut short: of {records:,} records {found}"
            raise UserError(what, remedy="make that shard again, or copy it again")


def join_bcf(paths: Sequence[Path], target: Path) -> None:
    """Write the records of BCF shards as one file, number for number; it declares what any of them does.

    Raises:
        UsageError: to stdout.
    """
    if str(target) == "-":
        raise UsageError("BCF does not go to stdout", at="-o", remedy="name a file")
    with quiet_htslib(), atomic_path(target) as path:
        header = pysam.VariantHeader()
        for number, shard in enumerate(paths):
            with pysam.VariantFile(str(shard)) as file:
                if number == 0:
                    for line in str(file.header).splitlines():
                        if line.startswith("##") and not line.startswith(_MARK):
                            header.add_line(line)
                    for sample in file.header.samples:
                        header.add_sample(sample)
                else:
                    _declare(header, file.header)
        with pysam.VariantFile(str(path), "wb", header=header) as out:
            for shard in paths:
                with pysam.VariantFile(str(shard)) as file:
                    for record in file:
                        record.translate(header)
                        out.write(record)
        remove_indexes(target)


def _declare(header: pysam.VariantHeader, other: pysam.VariantHeader) -> None:
    known = set(str(header).splitlines())
    for line in str(other).splitlines():
        if line.startswith("##") and not line.startswith(_OURS) and line not in known:
            header.add_line(line)
