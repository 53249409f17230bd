"""Memory that waits for the next pass."""

import pytest
import torch

from hyenadna.engine import workspace
from hyenadna.engine.workspace import Workspace

LIKE = torch.empty(())


@pytest.fixture(autouse=True)
def nothing_idle() -> None:
    workspace._IDLE.drop()


def address(work: Workspace, n: int, name: str = "x") -> int:
    return work.empty(name, (n,), LIKE, torch.float32).data_ptr()


def test_the_memory_of_a_finished_pass_serves_the_next_and_no_two_at_once() -> None:
    first, second = Workspace(), Workspace()
    a, b = address(first, 1 << 16), address(second, 1 << 16)
    assert a != b
    assert a == address(first, 100)
    del first
    third = Workspace()
    assert address(third, (1 << 16) - 5) == a


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_IDLE_BYTES", 3 << 20)
    monkeypatch.setattr(workspace, "_MOST_BYTES", 3 << 20)
    for n in (1 << 18, 1 << 19, 1 << 20, 3 << 16):
        address(Workspace(), n)
        assert workspace._IDLE.n_bytes <= 3 << 20
    assert workspace._IDLE.n_bytes


def test_memory_of_inference_mode_serves_training() -> None:
    with torch.inference_mode():
        a = address(Workspace(), 1 << 16)
    work = Workspace()
    x = work.empty("x", (1 << 16,), LIKE, torch.float32)
    assert x.data_ptr() == a
    x.fill_(1).mul_(2)
    assert not x.is_inference()
