"""BCF as the lines of VCF text that it stands for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from threading import Event, Thread

import pysam

from hyenacli.errors import UserError

_CHUNK = 1 << 18


@contextmanager
def bcf_as_text(stream: BufferedReader) -> Iterator[Iterator[bytes]]:
    """The lines of the VCF that a BCF stream stands for, header first, each with its line end.

    htslib reads files and pipes but no streams of ours, so a thread feeds it through a pipe; memory holds one
    record.

    Raises:
        UserError: the data are damaged or cut short, here or while reading.
    """
    failures: list[Exception] = []
    left = Event()
    outlet, inlet = os.pipe()
    feeder = Thread(target=_feed, args=(stream, inlet, failures, left))
    feeder.start()
    with os.fdopen(outlet, "rb", 0) as pipe:
        try:
            with quiet_htslib():
                with _damage_named(stream.name, failures):
                    file = pysam.VariantFile(pipe)
                with file:
                    yield _lines(file, stream.name, failures)
        finally:
            left.set()
            # A file that pysam cannot open it does not close either: the thread would wait for ever to write.
            while pipe.read(_CHUNK):
                pass
            feeder.join()


@contextmanager
def quiet_htslib() -> Iterator[None]:
    """Keep htslib from writing to stderr what we say better, or what is no concern of the user's."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def _lines(file: pysam.VariantFile, name: str, failures: list[Exception]) -> Iterator[bytes]:
    with _damage_named(name, failures):
        yield from str(file.header).encode().splitlines(keepends=True)
        for record in file:
            yield str(record).encode()
    if failures:
        raise failures[0]


def _feed(stream: BufferedReader, inlet: int, failures: list[Exception], left: Event) -> None:
    with os.fdopen(inlet, "wb", 0) as pipe:
        try:
            while not left.is_set() and (chunk := stream.read(_CHUNK)):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[pipe.write(rest) :]
        except Exception as error:  # raised again by the thread that reads, which sees the pipe end after it
            failures.append(error)


@contextmanager
def _damage_named(name: str, failures: list[Exception]) -> Iterator[None]:
    """What htslib cannot read, and what the feeding thread could not, in words of ours."""
    try:
        yield
    except (OSError, ValueError, TypeError) as error:  # TypeError: pysam trips over the name of a pipe
        if failures:
            raise failures[0] from None
        if isinstance(error, UnicodeDecodeError):
            remedy = "give VCF, as bcftools view writes it"
            raise UserError("BCF with text that is not UTF-8", at=name, remedy=remedy) from error
        remedy = "copy it again, or look at it with bcftools view"
        raise UserError("the BCF data are damaged or cut short", at=name, remedy=remedy) from error
