"""Shards of VCF and BCF files: their heads, and how several are joined."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pysam

from hyenacli.errors import UsageError, UserError
from hyenacli.readers.streams import open_binary
from hyenacli.readers.vcf import quiet_htslib
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.htslib import remove_indexes
from hyenacli.writers.variants import open_lines
from hyenacli.writers.vcf import OWN_PREFIX, SHARD_PREFIX, parse_provenance

_CHUNK_BYTES = 1 << 20


def _others(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith(OWN_PREFIX)]


def read_vcf_head(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the lines of the header that are not the tool's own, and what the tool's own say."""
    with open_binary(path) as stream:
        lines = [line.decode(errors="replace").rstrip("\r\n") for line in _header(stream)]
    return _others(lines), parse_provenance(lines)


def read_bcf_head(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Do the same for a BCF file, without the lines that declare what only this shard uses."""
    with quiet_htslib(), pysam.VariantFile(str(path)) as file:
        lines = str(file.header).splitlines()
    return _others(lines)[-1:], parse_provenance(lines)


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
        above = [line for line in _header(stream) if not line.startswith(SHARD_PREFIX.encode())]
    shards = [read_vcf_head(path)[1]["shard"] for path in paths]
    counts = []
    with open_lines(target, kind, above) as write:
        for path in paths:
            with open_binary(path) as stream:
                deque(_header(stream), maxlen=0)
                counts.append(0)
                while data := stream.read(_CHUNK_BYTES):
                    counts[-1] += data.count(b"\n")
                    write(data)
        records = shards[0]["records"]
        # a VCF cannot hold a mark at its end
        if sum(counts) != records and all(shard["every_record"] for shard in shards):
            each = ", ".join(f"{path} has {count:,}" for path, count in zip(paths, counts, strict=True))
            what = f"one of the shards is cut short: of {records:,} records {each}"
            raise UserError(what, remedy="make that shard again, or copy it again")


def join_bcf(paths: Sequence[Path], target: Path) -> None:
    """Write the records of BCF shards as one file, which declares what any of them does; values stay.

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
                        if line.startswith("##") and not line.startswith(SHARD_PREFIX):
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
    declared = set(str(header).splitlines())
    for line in str(other).splitlines():
        if line.startswith("##") and not line.startswith(OWN_PREFIX) and line not in declared:
            header.add_line(line)
