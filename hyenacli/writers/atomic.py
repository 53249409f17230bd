"""Output files and directories that appear complete or not at all."""

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hyenacli.errors import UsageError, UserError
from hyenacli.state_files import draft_path, remove_leftovers, sync

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
        sync(temporary)
        temporary.replace(final)
        sync(final.parent)
    except OSError as error:
        if error.errno in _FULL or error.filename in (str(temporary), str(final)):
            raise unwritable_error(error, target) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def ensure_writable(target: Path, *inputs: Path | None, outputs: Iterable[Path | None] = ()) -> None:
    """Check that an output can be written, before the work is done rather than after it.

    Args:
        target: output file; `-` is stdout and always writable.
        inputs: files that are read, which the output must not replace.
        outputs: the other files that the command writes; none of them may have the same name.

    Raises:
        UsageError: the output is one of the inputs or other outputs.
        UserError: as `atomic_path`.
    """
    if str(target) == "-" or _is_device(target):
        return
    for what, paths in (("an input", inputs), ("another output", outputs)):
        if any(path is not None and str(path) != "-" and _is_same_file(path, target) for path in paths):
            raise UsageError(f"is {what} of this very command", at=target, remedy="write to another file")
    _create_beside(Path(os.path.realpath(target)), target).unlink()


def _is_same_file(path: Path, other: Path) -> bool:
    if path.is_file() and other.is_file():
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)


def require_suffix(target: Path | None, suffix: str, what: str) -> None:
    """Refuse an output whose suffix is of another format than the one that is written.

    Args:
        target: output file; None where there is to be none.
        suffix: with its dot.
        what: for messages, as "the plot is an SVG".

    Raises:
        UsageError: it has another suffix.
    """
    if target is not None and target.suffix != suffix:
        raise UsageError(what, at=target, remedy=f"give it the suffix {suffix}")


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
    if not (target.is_dir() and any(target.iterdir())):
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
    remove_leftovers(final)
    temporary = draft_path(final)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise unwritable_error(error, target) from error
    try:
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        _put(temporary, final)
    except OSError as error:
        if error.errno in _FULL:
            raise unwritable_error(error, target) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(new: Path, final: Path) -> None:
    """Rename a directory to `final`; what was there comes back if that fails."""
    if not final.exists():
        new.rename(final)
        return
    old = draft_path(final, "old")
    final.rename(old)
    try:
        new.rename(final)
    except OSError:
        old.rename(final)
        raise
    shutil.rmtree(old)


def _is_device(target: Path) -> bool:
    # of /dev/stdout, which leads to no path where it is a pipe, nothing but the target itself can be asked
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unwritable_error(error, target) from error
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _create_beside(final: Path, target: Path) -> Path:
    try:
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        remove_leftovers(final)
        temporary = draft_path(final)
        temporary.touch()
    except OSError as error:
        raise unwritable_error(error, target) from error
    return temporary


def unwritable_error(error: OSError, target: Path) -> UserError:
    """Return the error for a target that the operating system does not let us write."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return UserError(f"cannot be written: {reason}", at=target, remedy=_REMEDIES.get(error.errno or 0))
