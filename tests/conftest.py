"""Fixtures every test may use."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Before anything imports torch: test processes run side by side, and two threads each would only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no fault.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

collect_ignore = ["imported.py"]  # it takes seconds, and has no doctests


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs beside the checkout; tests skip where it is absent."""
    folder = Path(os.environ.get("HYENA_TEST_DATA", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(
            "reference data are not here: set HYENA_TEST_DATA to the folder that holds golden/ and data/"
        )
    return folder


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have tests, and the processes they start, leave the user's cache alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    """A genome for small training runs."""
    rng = np.random.default_rng(5)
    path = tmp_path / "genome.fa"
    with path.open("w") as stream:
        for name in ("one", "two", "three"):
            stream.write(f">{name}\n{''.join(rng.choice(list('ACGT'), 2_000, p=[0.4, 0.1, 0.1, 0.4]))}\n")
    return path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Have every test leave torch with one thread: a command run with `-@ 2` would slow all later tests."""
    yield
    if (torch := sys.modules.get("torch")) is not None and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


@pytest.fixture
def figures() -> None:
    """Ask for the figures of reports in a module that does `without_figures`."""


@pytest.fixture
def without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of reports empty: drawing them takes longer than a small training."""
    charts = ("line_chart", "roc_chart", "pr_chart", "confusion_matrix", "reliability_chart", "scatter_chart")
    for chart in charts if "figures" not in request.fixturenames else ():
        for module in ("adaptation.report", "pretrain.command"):
            monkeypatch.setattr(f"hyenacli.{module}.{chart}", lambda *_, **__: "", raising=False)
