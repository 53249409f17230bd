"""Output files that appear whole or not at all, and run directories that no run overwrites by accident."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyenacli.errors import UsageError, UserError

RUN_MARKS = ("run.json", "config.yaml")
_REMEDIES = {
    errno.EACCES: "choose a place you may write to",
    errno.EPERM: "choose a place you may write to",
    errno.EROFS: "choose another place",
    errno.ENOENT: "create the directory first",
    errno.ENOTDIR: "a part of the path is a file: choose another place",
    errno.EISDIR: "name a file inside it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some of your quota or choose another disk",
    errno.EFBIG: "choose a file system or a limit that allows files of this size",
}
# Raised while writing, where the operating system names no file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path to write, which becomes `target` when the context ends well and vanishes when it does not.

    The temporary file lies beside the target (of a link: beside what it points to), so that the final rename
    is atomic. A target that exists and is no regular file (/dev/null, a named pipe) is written directly.

    Raises:
        UserError: the target is a directory, its directory is missing, or it is not writable or full.
    """
    if _is_device(target):
        yield target
        return
    final = Path(os.path.realpath(target))
    temporary = _create_beside(final, target)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(final)
        _sync(final.parent)
    except OSError as error:
        if error.errno in _FULL or error.filename in (str(temporary), str(final)):
            raise _unwritable(error, target) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def ensure_writable(target: Path, *inputs: Path | None) -> None:
    """Check that an output can be written, before the work is done rather than after it.

    Args:
        target: output file; `-` is stdout and always writable.
        inputs: files that are read, which the output must not replace.

    Raises:
        UsageError: the output is one of the inputs.
        UserError: as `atomic_path`.
    """
    for path in inputs:
        if path is not None and path.is_file() and target.is_file() and path.samefile(target):
            raise UsageError("is an input of this very command", at=target, remedy="write to another file")
    if str(target) != "-" and not _is_device(target):
        _create_beside(Path(os.path.realpath(target)), target).unlink()


def check_run_directory(path: Path, *, resume: bool, force: bool) -> None:
    """Refuse, before the work is done and without touching it, a run directory that may not be written into.

    Args:
        path: the run directory.
        resume: go on in a directory that holds a run.
        force: replace what the directory holds, provided that a run wrote it.

    Raises:
        UsageError: both resume and force.
        UserError: a file is in the way, the directory holds something and neither resume nor force is set,
            or force is set and no run wrote it.
    """
    if resume and force:
        raise UsageError("--resume goes on with a run and --force deletes it", remedy="give one of them")
    if path.exists() and not path.is_dir():
        raise UserError("is a file, a run needs a directory", at=path, remedy="choose another name")
    marks = [(path / mark).is_file() for mark in RUN_MARKS]
    if resume and not all(marks):
        raise UserError("holds no run to resume", at=path, remedy="start one without --resume")
    if _holds_something(path) and not resume:
        if not force:
            remedy = "add --resume or --force, or choose another"
            raise UserError("the directory is not empty", at=path, remedy=remedy)
        if not any(marks):
            remedy = "remove it yourself"
            raise UserError("holds no run of this tool, so --force leaves it alone", at=path, remedy=remedy)


def prepare_run_directory(path: Path, *, resume: bool, force: bool) -> None:
    """Make `path` a directory that a run may write into, with its parents; --force removes what it holds.

    Raises:
        UsageError, UserError: as `check_run_directory`, or the directory cannot be made.
    """
    check_run_directory(path, resume=resume, force=force)
    if _holds_something(path) and force:
        # Renamed first: a deletion cut short must not leave half a run under the name of a whole one.
        doomed = path.resolve().with_name(f".{path.resolve().name}.{os.getpid()}.removed")
        path.resolve().rename(doomed)
        shutil.rmtree(doomed)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error, path) from error


def check_directory(target: Path, suffix: str, *, force: bool) -> None:
    """Refuse, before the work is done and without touching it, a directory that may not be replaced.

    Args:
        target: the directory.
        suffix: of all the files that such a directory holds.
        force: replace one that holds something.

    Raises:
        UserError: a file is in the way, it is the current directory, the directory holds something and force
            is not set, or force is set and there are other files.
    """
    if target.exists() and not target.is_dir():
        raise UserError("is a file, and a directory is needed", at=target, remedy="choose another name")
    if target.exists() and target.samefile(Path.cwd()):
        raise UserError(
            "is the current directory, which cannot be replaced", at=target, remedy="name another"
        )
    if not _holds_something(target):
        return
    if not force:
        raise UserError("the directory is not empty", at=target, remedy="add --force, or choose another")
    if foreign := sorted(path.name for path in target.iterdir() if path.is_dir() or path.suffix != suffix):
        what = f"holds '{foreign[0]}', which is no {suffix} file, so --force leaves it alone"
        raise UserError(what, at=target, remedy="remove it yourself")


@contextmanager
def atomic_directory(target: Path, suffix: str, *, force: bool) -> Iterator[Path]:
    """Yield a directory to fill, which becomes `target` when the context ends well and else vanishes.

    Raises:
        UserError: as `check_directory`, or it is not writable or full.
    """
    check_directory(target, suffix, force=force)
    final = Path(os.path.realpath(target))
    temporary = final.with_name(f".{final.name[:200]}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(error, target) from error
    try:
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        _put(temporary, final)
    except OSError as error:
        if error.errno in _FULL:
            raise _unwritable(error, target) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(new: Path, final: Path) -> None:
    """Rename a directory to `final`; what was there comes back if that fails."""
    if not final.exists():
        new.rename(final)
        return
    old = new.with_suffix(".old")
    final.rename(old)
    try:
        new.rename(final)
    except OSError:
        old.rename(final)
        raise
    shutil.rmtree(old)


def _holds_something(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _is_device(target: Path) -> bool:
    # of /dev/stdout, which leads to no path where it is a pipe, nothing but the target itself can be asked
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unwritable(error, target) from error
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _create_beside(final: Path, target: Path) -> Path:
    try:
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary = final.with_name(f".{final.name[:200]}.{os.getpid()}.tmp")
        temporary.touch()
    except OSError as error:
        raise _unwritable(error, target) from error
    return temporary


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(error: OSError, target: Path) -> UserError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return UserError(f"cannot be written: {reason}", at=target, remedy=_REMEDIES.get(error.errno or 0))
