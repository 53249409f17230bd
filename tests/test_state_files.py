"""Sealed records and locks of the files that the tool keeps for itself."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from hyenacli.errors import UserError
from hyenacli.state_files import draft_path, read_sealed, remove_leftovers, seal, sole_writer, unseal
from hyenacli.writers.atomic import atomic_directory, atomic_path

RECORD = {"step": 3, "losses": [1.5, 1e-300, None], "name": "chr\u00e4\n", "nested": {"b": 1, "a": ""}}


@pytest.mark.parametrize("record", [{}, {"a": 1}, RECORD])
def test_a_sealed_record_comes_back(record: dict[str, object]) -> None:
    assert unseal(seal(record)) == record
    assert unseal(seal(record).encode()) == record


def test_every_changed_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    line = seal(RECORD).encode()
    path = tmp_path / "state.json"
    draw = random.Random(0)
    damaged = [line[: draw.randrange(len(line))] for _ in range(50)]
    for index in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[index // 8] ^= 1 << index % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"state.json: is damaged.*; start again"):
            read_sealed(path, "start again")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.json: cannot be read: No such file"):
        read_sealed(tmp_path / "none.json", "start again")


def test_a_second_writer_is_refused_until_the_first_has_ended_or_died(tmp_path: Path) -> None:
    lock, target = tmp_path / ".lock", tmp_path / "run"
    code = (
        "import sys, pathlib; from hyenacli.state_files import sole_writer\n"
        f"with sole_writer(pathlib.Path({str(lock)!r}), pathlib.Path({str(target)!r})):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with (
            pytest.raises(UserError, match=rf"run: process {holder.pid} on .* is writing it"),
            sole_writer(lock, target),
        ):
            pass
        holder.kill()
        holder.wait()
        with sole_writer(lock, target):
            assert lock.exists()
    assert not lock.exists()


def dead_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_drafts_of_dead_processes_go_and_others_stay(tmp_path: Path) -> None:
    final, dead = tmp_path / "out[1].tsv", dead_process()
    draft = draft_path(final)
    machine = draft.name.split("-")[-1].removesuffix(".tmp")
    gone = [
        f".{final.name}.{dead}-{machine}.tmp",
        f".{final.name}.{dead}.removed",
        f".{final.name}.{10**30}.old",
    ]
    stay = [
        f".{final.name}.{os.getppid()}-{machine}.tmp",
        f".{final.name}.{dead}-{'0' * 8}.tmp",  # of another machine
        f".{final.name}.{dead}.txt",
        f".other.tsv.{dead}-{machine}.tmp",
        f"{final.name}.{dead}-{machine}.tmp",
    ]
    for name in (*stay, *gone[:2]):
        (tmp_path / name).touch()
    (tmp_path / gone[2] / "inside").mkdir(parents=True)
    remove_leftovers(final)
    assert {path.name for path in tmp_path.iterdir()} == set(stay)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_a_killed_writer_left_goes_when_the_output_is_written_next(tmp_path: Path, kind: str) -> None:
    target, dead = tmp_path / "out", dead_process()
    (tmp_path / f".out.{dead}.tmp").mkdir()
    if kind == "file":
        with atomic_path(target) as path:
            path.write_text("whole")
    else:
        with atomic_directory(target, ".tsv", force=False) as path:
            (path / "a.tsv").touch()
    assert list(tmp_path.iterdir()) == [target]
