"""Files that the tool keeps for itself: checked when they are read, written by one process at a time.

Drafts of all outputs are named here, so that those of processes that died are removed by the next one.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from hyenacli.errors import UserError

_HASH = "sha256"


def seal(record: Mapping[str, Any], *, readable: bool = False) -> str:
    """Return a record as JSON whose last entry is the sha256 of the others: one line, or indented for people.

    >>> seal({"step": 3})[:20]
    '{"step":3,"sha256":"'
    """
    line = json.dumps(dict(record), separators=(",", ":"))
    sealed = {**record, _HASH: _digest(line)}
    return json.dumps(sealed, indent=2) if readable else json.dumps(sealed, separators=(",", ":"))


def unseal(sealed: str | bytes) -> dict[str, Any]:
    """Return the record of a text that `seal` wrote.

    Raises:
        ValueError: a bit of it has changed, or it was cut short.
    """
    text = sealed.decode() if isinstance(sealed, bytes) else sealed
    record = json.loads(text)
    if not isinstance(record, dict) or not record.pop(_HASH, None):
        raise ValueError("there is no hash")
    if seal(record, readable="\n" in text) != text:
        raise ValueError("the contents do not fit the hash")
    return record


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file of one sealed record, which a line break may follow.

    Raises:
        UserError: the file is missing or damaged; `remedy` says what to do.
    """
    try:
        return unseal(path.read_bytes().rstrip(b"\n"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        what = f"cannot be read: {reason}" if reason else "is damaged: its contents do not fit their hash"
        raise UserError(what, at=path, remedy=remedy) from None


@contextlib.contextmanager
def sole_writer(lock: Path, target: Path) -> Iterator[None]:
    """Hold a lock while the context lasts; the kernel releases it if this process dies.

    Args:
        lock: file beside or inside what is written; it is removed at the end.
        target: what is written, for messages.

    Raises:
        UserError: another process holds the lock.
    """
    file = _acquire(lock, target)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        os.register_at_fork(after_in_child=file.close)  # else the children of a dead holder hold the lock
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()


def _acquire(lock: Path, target: Path) -> TextIO:
    while True:
        file = lock.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            remedy = "wait for its end, stop it, or write elsewhere"
            raise UserError(f"{holder} is writing it", at=target, remedy=remedy) from None
        except OSError:  # a file system without locks
            return file
        # The last holder may have removed the file between our opening and locking it.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        file.close()


def sync(path: Path) -> None:
    """Have the operating system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def draft_path(final: Path, kind: str = "tmp") -> Path:
    """Return a hidden path beside `final` for this process, which writes there and then renames.

    Its name tells process and machine, by which `remove_leftovers` knows it.
    """
    return final.with_name(f".{final.name[:200]}.{os.getpid()}-{_machine()}.{kind}")


def remove_leftovers(final: Path) -> None:
    """Remove the drafts of an output that processes of this machine left when they were killed.

    Those of living processes and of other machines stay. Call it before a draft is made.
    """
    pattern = re.compile(
        rf"\.{re.escape(final.name[:200])}\.(\d+)(?:-([0-9a-f]{{8}}))?\.(?:tmp|old|removed)(?:\.bw)?"
    )
    with contextlib.suppress(OSError):
        for path in final.parent.iterdir():
            match = pattern.fullmatch(path.name)
            if match and match[2] in (None, _machine()) and not _is_alive(int(match[1])):
                with contextlib.suppress(OSError):
                    remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all in it, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _machine() -> str:
    """Return a short hash of this machine's name: processes of another one have the same numbers."""
    return _digest(socket.gethostname())[:8]


def _is_alive(process: int) -> bool:
    """Return True if another process of this number runs on this machine."""
    if process == os.getpid():  # an earlier process had our number
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's contents."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
