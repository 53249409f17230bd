"""Progress off a terminal, and as events."""

import json
import re
from pathlib import Path

import pytest

from hyenacli import console
from tests.builders import write_fasta


def test_a_line_and_an_event_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([1000.0, *(1000.0 + 10 * number for number in range(1, 9))])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock, 1080.0))
    with console.session(log_json=tmp_path / "log"), console.Progress("embedding", 80, "records") as progress:
        for number in range(1, 9):  # ten seconds each
            progress.update(10 * number, "500 bases/s" if number > 4 else "")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "TIME ", line) for line in lines] == [
        "TIME embedding: 30/80 records, 1 records/s, about 0:00:50 left",
        "TIME embedding: 60/80 records, 500 bases/s, about 0:00:20 left",
    ]
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(event["event"], event["done"], event["seconds_left"]) for event in events] == [
        ("progress", 30, 50),
        ("progress", 60, 20),
    ]


def test_the_first_line_promises_no_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 60.0, 100.0])  # of the session, of the progress, of its updates
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock, 100.0))
    with console.session(), console.Progress("embedding", 1000, "records") as progress:
        progress.update(1)  # after a minute of fitting batches to the memory
        progress.update(401)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("embedding: 1/1,000 records")
    assert second.endswith("embedding: 401/1,000 records, 10 records/s, about 0:01:00 left")


def test_quiet_has_events_and_no_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0)
    session = console.session(quiet=True, log_json=tmp_path / "log")
    with session, console.Progress("scoring", None, "records", done=3) as progress:
        progress.update(4)
    assert capsys.readouterr().err == ""
    event = json.loads((tmp_path / "log").read_text())
    assert (event["done"], event["total"], event["seconds_left"]) == (4, None, None)


def test_verbs_beat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hyenacli.app import app
    from hyenadna import HyenaConfig, HyenaDNA, save_model

    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0)
    config = HyenaConfig(d_model=8, n_layer=1, d_inner=16, l_max=40, filter_order=8)
    save_model(HyenaDNA(config).eval(), tmp_path / "model")
    genome = write_fasta(tmp_path / "a.fa", [("a", "ACGT" * 20), ("b", "GATTACA" * 9)])
    lines = [
        f"embed {genome} -m {tmp_path}/model -o {tmp_path}/a.tsv",
        f"evaluate {genome} -m {tmp_path}/model -o {tmp_path}/b.tsv --lengths 16",
        f"pretrain {genome} -o {tmp_path}/run --max-length 16 --d-model 8 --max-steps 2 --eval-windows 2",
    ]
    for line, doing in zip(lines, ("embedding", "evaluating", "training"), strict=True):
        with pytest.raises(SystemExit) as end:
            app(line.split(), prog_name="hyena")
        assert end.value.code == 0
        assert re.search(rf"^\d{{4}}-.* {doing}: \d+(/\d+)? \w+, .*/s", capsys.readouterr().err, re.MULTILINE)


def test_positions_are_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    with console.session():
        console.log.info("lowest: chrM:100:G>A [b]")
    assert "lowest: chrM:100:G>A [b]" in capsys.readouterr().err
