"""Where what is made of a genome is kept: in the user's cache, one folder per version of a file.

An index beside the FASTA may belong to an older version of it (and then gives wrong bases without a word),
the folder may be read-only, and plain gzip needs a copy that nobody wants there. So we never read or write
beside the user's files: the key of a cache folder is the file's path, size and times, and a changed file
simply has another folder.
"""

import contextlib
import glob
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hyenacli.errors import UserError
from hyenacli.readers.genome_index import GenomeFiles, build_index

_FORMAT = 1
_logger = logging.getLogger("hyena")

Signature = tuple[int, int, int]
"""Size in bytes, and the times of the last change of contents and of the file, in ns."""


def signature(path: Path) -> Signature:
    """What tells one version of a file from the next.

    Raises:
        UserError: there is no such file, or it is not one that can be read at random.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        raise UserError("no such file", at=path) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}", at=path) from None
    if not path.is_file():
        remedy = "a genome is read at random: give a FASTA file on disk"
        raise UserError("is not a file", at=path, remedy=remedy)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def indexed(path: Path) -> tuple[GenomeFiles, Signature]:
    """The files to read a genome from, and the version they are of; as `cached_folder`."""
    folder, version = cached_folder(path, f"index-{_FORMAT}", build_index)
    return GenomeFiles.within(folder, path), version


def cached_folder(path: Path, kind: str, build: Callable[[Path, Path], None]) -> tuple[Path, Signature]:
    """The folder with what is made of a genome, and the version that is of; built when first seen.

    A folder is built under another name and renamed, so that of several processes at once one wins and the
    others use its work. Folders of older versions of the same file are removed.

    Args:
        path: the FASTA, without symbolic links.
        kind: of the contents, format included.
        build: fills an empty folder (second argument) from the file (first argument).

    Raises:
        UserError: the file changes while it is read, no folder can be written to, or as `build`.
    """
    version = signature(path)
    root = _cache_root()
    family = f"{path.name[:40]}-{_digest(str(path))}-{kind}-"
    folder = root / f"{family}{_digest(str(version))}"
    if not folder.is_dir():
        _logger.info("reading %s, once, into %s", path, folder)
        _build(path, version, folder, build)
        for other in root.glob(f"{glob.escape(family)}*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return folder, version


def _build(path: Path, version: Signature, folder: Path, build: Callable[[Path, Path], None]) -> None:
    try:
        with tempfile.TemporaryDirectory(
            prefix=".building-", dir=folder.parent, ignore_cleanup_errors=True
        ) as building:
            build(path, Path(building))
            if signature(path) != version:
                raise UserError("the file changed while it was read", at=path, remedy="wait for its end")
            Path(building).rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise UserError(
                f"the cache cannot be written: {error.strerror or error}",
                at=folder.parent,
                remedy="set XDG_CACHE_HOME to a folder with space",
            ) from error


def _cache_root() -> Path:
    """The user's cache, or a private folder for temporary files where there is none (containers)."""
    for root in _candidates():
        genomes = root / "genomes"
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            genomes.mkdir(exist_ok=True)
        except OSError:
            continue
        # A folder under a guessable name may have been laid there by somebody else.
        if root.stat().st_uid == os.getuid() and os.access(genomes, os.W_OK):
            return genomes
    raise UserError(
        "no folder to keep what is made of a genome in", remedy="set XDG_CACHE_HOME to a writable folder"
    )


def _candidates() -> Iterator[Path]:
    configured = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # raised where the user has no home
        yield (Path(configured) if configured else Path.home() / ".cache") / "hyena"
    yield Path(tempfile.gettempdir()) / f"hyena-{os.getuid()}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
