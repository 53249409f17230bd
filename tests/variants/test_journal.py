"""The journal of an interrupted run: what is in it comes back, or is scored again, and nothing else."""

import math
import random
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from hyenacli.errors import UserError
from hyenacli.variants.journal import open_journal, output_lock
from hyenacli.variants.scorer import AlleleScore

NAMES = ("llr", "site")
IDENTITY = {"hyena_version": "1", "hyena_command": "hyena score-variants", "shard": {}}
BLOCKS = {
    f"digest{number}": [
        AlleleScore("OK", {"llr": number / 3, "site": -1e-7 * number}),
        AlleleScore("NO_CONTIG"),
        AlleleScore("EDGE", {"llr": 0.0, "site": math.nan}),
    ]
    for number in range(4)
}


def leave(target: Path) -> Path:
    """Leave the journal of a run that was interrupted after all blocks."""
    with suppress(KeyboardInterrupt), open_journal(target, IDENTITY, NAMES, resume=False) as journal:
        for digest, scores in BLOCKS.items():
            assert journal.take(digest) is None
            journal.add(digest, scores)
        raise KeyboardInterrupt
    return target.with_name(f"{target.name}.unfinished")


def resume(target: Path) -> int:
    """Return how many blocks come back, all of them as they were."""
    kept = 0
    with open_journal(target, IDENTITY, NAMES, resume=True) as journal:
        for digest, scores in BLOCKS.items():
            again = journal.take(digest)
            assert again is None or repr(again) == repr(scores)
            kept += again is not None
            if again is None:
                journal.add(digest, scores)
    return kept


def test_what_was_scored_comes_back(tmp_path: Path) -> None:
    path = leave(tmp_path / "out.vcf")
    assert resume(tmp_path / "out.vcf") == len(BLOCKS)
    assert not path.exists()


def test_no_damage_changes_a_score_or_ends_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "out.vcf"
    path = leave(target)
    sound, draw = path.read_bytes(), random.Random(0)
    kept = []
    for trial in range(250):
        damaged = bytearray(sound)
        if trial < 200:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        else:
            del damaged[draw.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        caplog.clear()
        kept.append(resume(target))
        # a line that was being written when the process ended is no damage
        lost_line_end = damaged.count(b"\n") < sound.count(b"\n")
        assert kept[-1] < len(BLOCKS)
        assert lost_line_end or "is damaged" in caplog.text
    assert set(kept) == set(range(len(BLOCKS)))


def test_blocks_of_other_records_are_refused(tmp_path: Path) -> None:
    leave(tmp_path / "out.vcf")
    with (
        pytest.raises(UserError, match="was made from other records than this input's"),
        open_journal(tmp_path / "out.vcf", IDENTITY, NAMES, resume=True) as journal,
    ):
        journal.take("another")


def test_one_process_writes_an_output(tmp_path: Path) -> None:
    free = [tmp_path / "other.vcf", Path("-"), Path("/dev/null")]
    with ExitStack() as stack:
        for target in (tmp_path / "out.vcf", *free):
            stack.enter_context(output_lock(target))
        with pytest.raises(UserError, match=r"out\.vcf: process \d+ on .* is writing it"):
            stack.enter_context(output_lock(tmp_path / "out.vcf"))
    assert list(tmp_path.iterdir()) == []
