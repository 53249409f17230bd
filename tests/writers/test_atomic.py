import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hyenacli.errors import UsageError, UserError
from hyenacli.writers.atomic import atomic_path, check_directory, ensure_writable


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with atomic_path(target) as path:
        path.write_text("half")
        assert not target.exists()
        assert path.parent == tmp_path
        path.write_text("whole")
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(TypeError), atomic_path(target) as path:
        path.write_text(b"new")  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as path:
        path.write_text("x")
    (tmp_path / "b").write_text("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_a_link_is_written_through(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "x", tmp_path / "link"
    real.parent.mkdir()
    link.symlink_to(real)
    with atomic_path(link) as path:
        path.write_text("data")
    assert link.is_symlink()
    assert real.read_text() == "data"


def test_two_outputs_do_not_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UsageError, match=r"is another output of this very command"):
        ensure_writable(tmp_path / "new.tsv", outputs=[None, Path("-"), tmp_path / "link" / "new.tsv"])
    (tmp_path / "old.tsv").touch()
    with pytest.raises(UsageError, match=r"is another output of this very command"):
        ensure_writable(tmp_path / "old.tsv", outputs=[tmp_path / "old.tsv"])
    with pytest.raises(UsageError, match=r"is an input of this very command"):
        ensure_writable(tmp_path / "old.tsv", tmp_path / "link" / "old.tsv")


def test_a_device_stays_a_device() -> None:
    null = Path(os.devnull)
    ensure_writable(null)
    with atomic_path(null) as path:
        path.write_bytes(b"gone")
    assert null.is_char_device()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing/out.tsv", "no such file or directory; create the directory first"),
        ("file/out.tsv", "not a directory; a part of the path is a file"),
        ("folder", "is a directory; name a file inside it"),
        ("n" * 256, "choose a shorter name"),
    ],
)
def test_unwritable_targets_say_why(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    target = tmp_path / name
    with pytest.raises(UserError, match=said) as checked:
        ensure_writable(target)
    with pytest.raises(UserError) as written, atomic_path(target):
        pytest.fail("the body must not run")
    assert str(checked.value) == str(written.value)
    assert str(checked.value).startswith(f"{target}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_permission_denied(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="permission denied; choose a place"):
        ensure_writable(tmp_path / "x")
    tmp_path.chmod(0o700)


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    said = r"x.npz: cannot be written: no space left.*free some space"
    with pytest.raises(UserError, match=said), atomic_path(tmp_path / "x.npz"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_the_bodys_own_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        (tmp_path / "genome.fa").read_text()


def test_stdout_is_writable() -> None:
    ensure_writable(Path("-"))


def test_a_pipe_is_written_by_its_name() -> None:
    code = "import pathlib; from hyenacli.writers.atomic import atomic_path as a\n"
    code += "with a(pathlib.Path('/dev/stdout')) as path: path.open('w').write('whole')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "whole"


def test_the_current_directory_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for target in (Path(), Path("../empty")):
        with pytest.raises(
            UserError, match="is the current directory, which cannot be replaced; name another"
        ):
            check_directory(target, ".fa", force=True)
