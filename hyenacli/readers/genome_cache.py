"""The user's cache of what is made of genomes: one folder per version of a file.

An index beside a FASTA may belong to an older version of it (and then gives wrong bases without a word), the
folder may be read-only, and nobody wants copies there. So nothing beside the user's files is read or written:
the key of a cache folder is the file's path, size and times, and a changed file simply has another folder.
"""

import contextlib
import fcntl
import glob
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hyenacli.errors import UserError

_logger = logging.getLogger("hyena")

Signature = tuple[int, int, int]
"""Size in bytes, and the times of the last change of contents and of the file, in ns."""


class CacheError(UserError):
    """The cache cannot be written to, as when it has no room left."""


def signature(path: Path) -> Signature:
    """Return what tells one version of a file from the next.

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


def cached_folder(path: Path, kind: str) -> Path:
    """Return the folder for what is made of a genome; it exists where somebody has built it.

    Args:
        path: the FASTA, without symbolic links.
        kind: of the contents, format included.

    Raises:
        UserError: the file is missing, or no folder can be written to.
    """
    return _cache_root() / f"{_family(path)}{kind}-{_digest(str(signature(path)))}"


def build_folder(path: Path, folder: Path, build: Callable[[Path, Path], None]) -> None:
    """Build the folder that `cached_folder` names, and remove all others of the same file.

    A folder is built under another name, flushed to disk and renamed, by one process at a time where the
    file system knows locks; the others then find it.

    Args:
        path: the FASTA, without symbolic links.
        folder: the folder.
        build: fills an empty folder (second argument) from the file (first argument).

    Raises:
        CacheError: the folder cannot be written.
        UserError: the file changes while it is read, or as `build`.
    """
    try:
        with _locked(folder.parent):
            if not folder.is_dir():
                _logger.info("reading %s, once, into %s", path, folder)
                _build(path, folder, build)
    except OSError as error:
        if not folder.is_dir():
            raise CacheError(
                f"the cache cannot be written: {error.strerror or error}",
                at=folder.parent,
                remedy="set XDG_CACHE_HOME to a folder with space",
            ) from error
    for other in folder.parent.glob(f"{glob.escape(_family(path))}*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def _build(path: Path, folder: Path, build: Callable[[Path, Path], None]) -> None:
    version = signature(path)
    with tempfile.TemporaryDirectory(
        prefix=".building-", dir=folder.parent, ignore_cleanup_errors=True
    ) as building:
        build(path, Path(building))
        if signature(path) != version:
            raise UserError("the file changed while it was read", at=path, remedy="wait for its end")
        for file in (*Path(building).iterdir(), Path(building)):
            _flush(file)
        Path(building).rename(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, or go on without one where the file system has none."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cache_root() -> Path:
    """Return the user's cache, or a private folder for temporary files where there is none (containers)."""
    for root in _candidates():
        genomes = root / "genomes"
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            genomes.mkdir(exist_ok=True)
        except OSError:
            continue
        # Somebody else may have made a folder of this guessable name.
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


def _family(path: Path) -> str:
    """Return what the names of all cache folders of one file begin with."""
    return f"{path.name[:40]}-{_digest(str(path))}-"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
