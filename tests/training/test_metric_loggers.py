"""metrics.csv: complete after a resumption, and written by the first rank alone."""

import math
from pathlib import Path

from hyenacli.training.metric_loggers import CSVLogger, read_metrics


def test_metrics_survive_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    columns = ("step", "loss", "valid_loss")
    with CSVLogger(path, columns, 0, write=True) as metrics:
        for step in range(5):
            metrics.write({"step": step, "loss": step / 3})
            if step == 2:
                keep = path.stat().st_size
    with path.open("a") as stream:
        stream.write("5,0.12")
    assert len(read_metrics(path)) == 5
    with CSVLogger(path, columns, keep, write=True) as metrics:
        metrics.write({"step": 3, "loss": 12_345_678_901, "valid_loss": math.nan})
    assert [row["step"] for row in read_metrics(path)] == ["0", "1", "2", "3"]
    assert read_metrics(path)[3] == {"step": "3", "loss": "12345678901", "valid_loss": "nan"}


def test_metrics_of_other_ranks_write_nothing(tmp_path: Path) -> None:
    with CSVLogger(tmp_path / "metrics.csv", ("step",), 0, write=False) as metrics:
        metrics.write({"step": 1})
    assert list(tmp_path.iterdir()) == []
