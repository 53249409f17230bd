"""Sealed records and locks of the files that the tool keeps for itself."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from hyenacli.errors import UserError
from hyenacli.state_files import read_sealed, seal, sole_writer, unseal

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
