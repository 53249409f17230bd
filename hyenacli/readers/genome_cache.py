"""The user's cache of what is made of genomes: one folder per version of a file.

An index beside a FASTA may belong to an older version of it (and then gives wrong bases without a word), the
folder may be read-only, and nobody wants copies there. So nothing beside the user's files is read or written:
the key of a cache folder is the file's path, size and times, and a changed file simply has another folder.

What is kept is checked when it is read: small files whole, at every opening; a large one block by block, each
at its first use. What does not fit is built again.
"""

import contextlib
import fcntl
import glob
import hashlib
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from hyenacli.errors import UserError
from hyenacli.state_files import draft_path, file_sha256, remove, remove_leftovers, seal, sync, unseal

if TYPE_CHECKING:
    from numpy.typing import NDArray

_logger = logging.getLogger("hyena")

Signature = tuple[int, int, int]
"""Size in bytes, and the times of the last change of contents and of the file, in ns."""


_BLOCK_BITS = 16
_BLOCK = 1 << _BLOCK_BITS
_DESCRIPTION, _SUMS = "genome.json", ".crc"


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


def read_folder(folder: Path) -> dict[str, Any] | None:
    """Return the description that was given to `build_folder`, None if the folder is not as it was built.

    The contents of a file written by `BlockWriter` are not looked at, see `BlockReader`.
    """
    try:
        record = unseal((folder / _DESCRIPTION).read_bytes())
        if any(
            _facts(folder / name, hashed=bool(facts[1])) != facts for name, facts in record["files"].items()
        ):
            return None
    except (OSError, ValueError, RecursionError):
        return None
    description: dict[str, Any] = record["made"]
    return description


def _facts(file: Path, *, hashed: bool) -> list[Any]:
    """Return the size and the sha256 of a file, "" where its blocks have checksums; of a link the target."""
    if file.is_symlink():
        return [0, str(file.readlink())]
    return [file.stat().st_size, file_sha256(file) if hashed else ""]


class BlockWriter:
    """A file in the making, and beside it a file with a CRC-32 for each of its blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._sums: list[int] = []
        self._sum = self._filled = 0

    def write(self, data: bytes) -> None:
        """Add bytes to the end."""
        self._file.write(data)
        rest = memoryview(data)
        while rest:
            part = rest[: _BLOCK - self._filled]
            self._sum = zlib.crc32(part, self._sum)
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == _BLOCK:
                self._end_block()

    def _end_block(self) -> None:
        self._sums.append(self._sum)
        self._sum = self._filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._filled:
            self._end_block()
        Path(f"{self._path}{_SUMS}").write_bytes(np.array(self._sums, "<u4").tobytes())


class BlockReader:
    """A file of `BlockWriter`, mapped into memory, of which every block is checked before its first use.

    Attributes:
        data: the bytes; `check` those that are to be read.
    """

    def __init__(self, path: Path) -> None:
        # As a plain array: a memmap makes every slice a memmap, which takes ten times as long.
        mapped = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        self.data: NDArray[np.uint8] = np.asarray(mapped)
        self._sums = np.fromfile(f"{path}{_SUMS}", "<u4")
        self._unchecked = bytearray(b"\1" * len(self._sums))

    def check(self, start: int, end: int) -> bool:
        """Return whether the bytes [start, end) are as they were written."""
        last = (end - 1 >> _BLOCK_BITS) + 1
        block = self._unchecked.find(1, start >> _BLOCK_BITS, last)
        while block >= 0:
            data = memoryview(self.data.data)[block << _BLOCK_BITS : block + 1 << _BLOCK_BITS]
            if zlib.crc32(data) != self._sums[block]:
                return False
            self._unchecked[block] = 0
            block = self._unchecked.find(1, block, last)
        return True


def build_folder(path: Path, folder: Path, build: Callable[[Path, Path], dict[str, Any]]) -> dict[str, Any]:
    """Build the folder that `cached_folder` names if it is not there or damaged; remove others of the file.

    A folder is built under another name, flushed to disk and renamed, by one process at a time where the
    file system knows locks; the others then find it. Returns what `read_folder` does.

    Args:
        path: the FASTA, without symbolic links.
        folder: the folder.
        build: fills an empty folder (second argument) from the file (first argument), and returns what
            `read_folder` shall return.

    Raises:
        CacheError: the folder cannot be written.
        UserError: the file changes while it is read, or as `build`.
    """
    try:
        with _locked(folder.parent):
            description = read_folder(folder)
            if description is None:
                if folder.exists():
                    _logger.warning("%s: its copy in %s is damaged, and is made again", path, folder)
                    remove(folder)
                _logger.info("reading %s, once, into %s", path, folder)
                description = _build(path, folder, build)
    except OSError as error:
        raise CacheError(
            f"the cache cannot be written: {error.strerror or error}",
            at=folder.parent,
            remedy="set HYENA_CACHE to a folder with space",
        ) from error
    for other in folder.parent.glob(f"{glob.escape(_family(path))}*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return description


def discard(folder: Path) -> None:
    """Mark a folder of which a block is damaged, so that `build_folder` builds it again."""
    with _locked(folder.parent), contextlib.suppress(FileNotFoundError):
        (folder / _DESCRIPTION).unlink()


class CacheEntry(NamedTuple):
    """What the cache keeps of one file.

    Attributes:
        name: of the entry; it begins with the name of the file.
        megabytes: on disk.
        changed: when it was made, in seconds since the epoch.
    """

    name: str
    megabytes: float
    changed: float


def list_cache() -> tuple[Path, list[CacheEntry]]:
    """Return the folder of the cache, and its entries by name."""
    root = _cache_root()
    entries = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        size = sum(file.stat().st_size for file in folder.iterdir() if not file.is_symlink())
        entries.append(CacheEntry(folder.name, size / 1e6, folder.stat().st_mtime))
    return root, entries


def clean_cache() -> list[CacheEntry]:
    """Remove every entry, and return them; running commands keep the files that they have open."""
    root, entries = list_cache()
    with _locked(root):
        for entry in entries:
            shutil.rmtree(root / entry.name, ignore_errors=True)
    return entries


def _build(path: Path, folder: Path, build: Callable[[Path, Path], dict[str, Any]]) -> dict[str, Any]:
    version = signature(path)
    family = folder.parent / _family(path)
    remove_leftovers(family)
    building = draft_path(family)
    remove(building)
    building.mkdir()
    try:
        description = build(path, building)
        if signature(path) != version:
            raise UserError("the file changed while it was read", at=path, remedy="wait for its end")
        files = [file for file in building.iterdir() if not file.is_symlink()]
        blocks = {file.name.removesuffix(_SUMS) for file in files if file.name.endswith(_SUMS)}
        sizes = {
            file.name: (file.stat().st_size, "" if file.name in blocks else file_sha256(file))
            for file in files
        }
        (building / _DESCRIPTION).write_text(seal({"made": description, "files": sizes}))
        for file in (*building.iterdir(), building):
            sync(file)
        building.rename(folder)
        sync(folder.parent)
        return description
    finally:
        remove(building)


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
        "no folder to keep what is made of a genome in", remedy="set HYENA_CACHE to a writable folder"
    )


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("HYENA_CACHE"):
        yield Path(chosen)
        return
    configured = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # raised where the user has no home
        yield (Path(configured) if configured else Path.home() / ".cache") / "hyena"
    yield Path(tempfile.gettempdir()) / f"hyena-{os.getuid()}"


def _family(path: Path) -> str:
    """Return what the names of all cache folders of one file begin with."""
    return f"{path.name[:40]}-{_digest(str(path))}-"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
