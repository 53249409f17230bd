"""The small parts of training: schedule, metrics file, charts, signals."""

import math
import os
import signal
from pathlib import Path

import pytest

from hyenacli.training.csv_logger import CSVLogger, read_metrics
from hyenacli.training.schedule import cosine
from hyenacli.training.signals import stop_on_signals


def test_learning_rate_rises_then_falls_to_its_floor() -> None:
    rates = [cosine(s, peak=1.0, floor=0.1, warmup=10, total=100) for s in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.55)
    assert cosine(500, peak=1.0, floor=0.1, warmup=10, total=100) == pytest.approx(0.1)


def test_metrics_survive_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    columns = ("step", "loss", "valid_loss")
    with CSVLogger(path, columns, None, write=True) as metrics:
        for step in range(5):
            metrics.write({"step": step, "loss": step / 3})
    with path.open("a") as stream:
        stream.write("5,0.12")
    with CSVLogger(path, columns, 2, write=True) as metrics:
        metrics.write({"step": 3, "loss": 12_345_678_901, "valid_loss": math.nan})
    assert [row["step"] for row in read_metrics(path)] == ["0", "1", "2", "3"]
    assert read_metrics(path)[3] == {"step": "3", "loss": "12345678901", "valid_loss": "nan"}


def test_metrics_of_other_ranks_write_nothing(tmp_path: Path) -> None:
    with CSVLogger(tmp_path / "metrics.csv", ("step",), None, write=False) as metrics:
        metrics.write({"step": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_are_collected(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.exit_code == code
    assert signal.getsignal(number) is before


def test_a_second_interrupt_does_not_wait() -> None:
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
