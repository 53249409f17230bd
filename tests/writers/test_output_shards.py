"""Which part a process does, and that exactly one of them joins all parts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import pytest

from hyenacli.errors import UsageError, UserError
from hyenacli.readers.shards import Shard
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard


def ranks(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def test_a_plain_process_does_everything_or_the_part_it_is_told(tmp_path: Path) -> None:
    target = tmp_path / "o.tsv"
    assert resolve_shard(None, target) == OutputShard(None, target)
    assert resolve_shard("2/5", target) == OutputShard(Shard(2, 5), target)


def test_a_process_of_many_does_its_own_and_removes_what_an_earlier_run_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "o.tsv"
    for name in ("o.shard-1-of-2.tsv", "o.shard-2-of-2.tsv", ".o.tsv.joining", "o.tsv"):
        (tmp_path / name).touch()
    ranks(monkeypatch, 1, 2)
    share = resolve_shard(None, target)
    assert share == OutputShard(Shard(2, 2), tmp_path / "o.shard-2-of-2.tsv", target)
    with pytest.raises(UsageError, match=r"o\.tsv: is an input of this very command"):
        share.check(target)
    assert share.target.exists()
    share.check()
    share.clear()
    ranks(monkeypatch, 0, 2)
    resolve_shard(None, target).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["o.tsv"]
    with pytest.raises(UsageError, match="leave it out"):
        resolve_shard("1/2", target)
    with pytest.raises(UsageError, match="cannot share stdout"):
        resolve_shard(None, Path("-"))


def write_shares(target: Path, of: int) -> list[OutputShard]:
    shards = [Shard(number, of) for number in range(1, of + 1)]
    return [OutputShard(shard, shard.path(target), target) for shard in shards]


def join(paths: Sequence[Path], target: Path) -> None:
    target.write_text("".join(path.read_text() for path in paths))


def test_the_last_sums_what_multiqc_shows(tmp_path: Path) -> None:
    target = tmp_path / "peaks.tsv"
    first, second = (replace(share, multiqc=True) for share in write_shares(target, 2))
    for share in (first, second):
        share.target.write_text("x")
    second.write_statuses("embed", {"OK": 2, "N_CONTENT": 1})
    # the shard of the other process is complete, but not what it counts
    assert not merge_if_last(second, join)
    first.write_statuses("embed", {"NO_CONTIG": 4, "N_CONTENT": 2})
    assert merge_if_last(first, join)
    report = tmp_path / "peaks.tsv.hyena_mqc.json"
    assert sorted(tmp_path.iterdir()) == [target, report]
    summed = json.loads(report.read_text())
    assert summed["data"] == {"peaks": {"OK": 2, "NO_CONTIG": 4, "N_CONTENT": 3}}
    OutputShard(None, target, multiqc=True).write_statuses("embed", summed["data"]["peaks"])
    assert json.loads(report.read_text()) == summed
    second.write_statuses("embed", {})
    second.clear()
    assert sorted(tmp_path.iterdir()) == [target, report]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_last_joins_in_the_order_of_the_input(tmp_path: Path, order: list[int]) -> None:
    target = tmp_path / "o.tsv"
    shares = write_shares(target, 3)
    done = []
    for place in order:
        shares[place].target.write_text(f"{place}\n")
        Path(f"{shares[place].target}.tbi").touch()
        done.append(merge_if_last(shares[place], join))
    assert done == [False, False, True]
    assert target.read_text() == "0\n1\n2\n"
    assert [path.name for path in tmp_path.iterdir()] == ["o.tsv"]


def test_processes_that_end_together_join_once(tmp_path: Path) -> None:
    target, calls = tmp_path / "o.tsv", []
    shares, ready = write_shares(target, 8), Barrier(8)

    def finish(share: OutputShard) -> None:
        share.target.write_text("x")
        ready.wait()
        merge_if_last(share, lambda paths, whole: (calls.append(whole), join(paths, whole)))

    threads = [Thread(target=finish, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [target]
    assert target.read_text() == "x" * 8


def test_shards_outlive_a_join_that_fails(tmp_path: Path) -> None:
    (share,) = write_shares(tmp_path / "o.tsv", 1)
    share.target.write_text("x")

    def fail(paths: Sequence[Path], target: Path) -> None:
        raise UserError("full")

    with pytest.raises(UserError, match="full"):
        merge_if_last(share, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["o.shard-1-of-1.tsv"]


def test_nobody_joins_what_was_written_by_hand(tmp_path: Path) -> None:
    def never(paths: Sequence[Path], target: Path) -> None:
        pytest.fail("joined")

    assert not merge_if_last(OutputShard(Shard(1, 1), tmp_path / "o.tsv"), never)
    assert not merge_if_last(OutputShard(None, tmp_path / "o.tsv"), never)
