"""Run directories: created, resumed, replaced, and never overwritten by accident."""

from pathlib import Path

import pytest

from hyenacli.errors import UsageError, UserError
from hyenacli.training.run_directory import prepare_run_directory


def test_a_run_directory_is_made(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    prepare_run_directory(run, resume=False, force=False)
    assert run.is_dir()
    prepare_run_directory(run, resume=False, force=False)
    with pytest.raises(UserError, match="holds no run to resume"):
        prepare_run_directory(run, resume=True, force=False)


def test_a_run_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="not empty; add --resume or --force"):
        prepare_run_directory(tmp_path, resume=False, force=False)
    (tmp_path / "config.yaml").touch()
    prepare_run_directory(tmp_path, resume=True, force=False)
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("mark", ["run.json", "config.yaml"])
def test_force_replaces_a_run(tmp_path: Path, mark: str) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / mark).touch()
    prepare_run_directory(run, resume=False, force=True)
    assert list(run.iterdir()) == []
    assert list(tmp_path.iterdir()) == [run]


def test_force_never_removes_anything_else(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years")
    with pytest.raises(UserError, match="holds no run of this tool"):
        prepare_run_directory(tmp_path, resume=False, force=True)
    assert thesis.read_text() == "years"


def test_impossible_run_directories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        prepare_run_directory(tmp_path / "file", resume=False, force=False)
    with pytest.raises(UserError, match="cannot be written: not a directory"):
        prepare_run_directory(tmp_path / "file" / "run", resume=False, force=False)
    with pytest.raises(UsageError, match="give one of them"):
        prepare_run_directory(tmp_path, resume=True, force=True)
