import pytest
import torch

from hyenacli import devices
from hyenacli.errors import UsageError, UserError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "expected"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_names_with_two_gpus(two_gpus: None, name: str, expected: str) -> None:
    assert str(devices.resolve_device(name)) == expected


def test_each_process_of_a_job_has_its_own(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(devices.resolve_device("auto")) == "cuda:1"


def test_auto_without_a_gpu(only_cpu: None) -> None:
    assert devices.resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there(only_cpu: None, name: str) -> None:
    with pytest.raises(UserError, match="is not on this machine; use one of cpu") as caught:
        devices.resolve_device(name)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "tpu:0"])
def test_an_unknown_device(name: str) -> None:
    with pytest.raises(UsageError, match="--device: unknown device"):
        devices.resolve_device(name)


def test_precision() -> None:
    cpu = torch.device("cpu")
    x = torch.ones(2, 2)
    with devices.autocast(cpu, "float32"):
        assert (x @ x).dtype == torch.float32
    with devices.autocast(cpu, "bfloat16"):
        assert (x @ x).dtype == torch.bfloat16


def test_threads() -> None:
    before = torch.get_num_threads()
    devices.set_threads(None)
    assert torch.get_num_threads() == before
    devices.set_threads(1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
