"""`hyena doctor`, through the command line."""

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hyenacli.app import app
from hyenacli.tools import doctor
from hyenadna.checks import DeviceCheck, self_test
from hyenadna.engine import inference
from hyenadna.engine.convolution import convolve_

SECTIONS = ["field", "device", "optional", "result", "device"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes long."""
    monkeypatch.setattr(doctor, "self_test", partial(self_test, paths=("inference", "gradients")))
    monkeypatch.setattr(doctor, "SPEED_CASES", (("tiny-1k", 2, 64),))
    monkeypatch.setattr(doctor, "SECONDS_PER_CASE", 1e-9)


@pytest.fixture
def hyena(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            app(["doctor", "--device", "cpu", *map(str, arguments)], prog_name="hyena")
        return end.value.code, *capsys.readouterr()

    return run


def tables(out: str) -> list[list[list[str]]]:
    """The tables, a list of rows each, headers included; the advice is a table of one cell."""
    return [[line.split("\t") for line in part.splitlines()] for part in out.split("\n\n")]


def louder(*arguments: Any) -> None:
    convolve_(*arguments)
    arguments[0].mul_(1.5)


def test_a_sound_machine(hyena: Any) -> None:
    code, out, error = hyena()
    assert code == 0
    *parts, advice = tables(out)
    assert [part[0][0] for part in parts] == SECTIONS
    assert all(len({len(row) for row in part}) == 1 for part in parts)
    assert dict(parts[0])["torch"].startswith(torch.__version__)
    assert parts[1][1][0] == "cpu"
    assert [row[0] for row in parts[3][1:]] == ["PASS"] * 7
    assert parts[4][1][:5] == ["cpu", "float32", "tiny-1k", "2", "64"]
    assert int(parts[4][1][5]) > 0
    assert advice[0][0].startswith("Use float32 on cpu (errors up to ")
    assert "checking the numbers on cpu\n" in error


def test_the_same_numbers_every_time(hyena: Any) -> None:
    first, second = (tables(hyena("--no-speed", "-q")[1]) for _ in range(2))
    assert len(first) == len(SECTIONS)  # the advice instead of the speed
    for ours, again in zip(first, second, strict=True):
        if ours[0][0] != "device":  # free memory
            assert ours == again


def test_json(hyena: Any) -> None:
    code, out, error = hyena("--json", "-q")
    report = json.loads(out)
    assert (code, error) == (0, "")
    assert list(report) == ["system", "devices", "optional", "checks", "speed", "advice"]
    assert report["system"]["threads"] == torch.get_num_threads()
    assert report["checks"][0]["check"] == "definition"
    assert report["checks"][0]["error"] <= report["checks"][0]["tolerance"]
    assert "speed" not in json.loads(hyena("--json", "--no-speed")[1])


def test_wrong_numbers_are_found(hyena: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "convolve_", louder)
    code, out, _ = hyena()
    assert code == 1
    *parts, advice = tables(out)
    found = {(row[2], row[3]): row[0] for row in parts[3][1:]}
    assert found["float64", "inference"] == found["float32", "inference"] == "FAIL"
    assert found["float64", "gradients"] == found["float64", "definition"] == "PASS"
    assert len(parts) == 4  # what is wrong is not timed
    assert advice == [["Use nothing on cpu: its numbers are wrong."]]


def test_what_cannot_run_is_said(hyena: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(inference, "convolve_", fail)
    code, out, error = hyena("--json")
    checks = json.loads(out)["checks"]
    assert code == 1
    assert [check["error"] for check in checks if check["check"] == "inference"] == [None] * 3
    assert "warning: cpu, float32, inference: no kernel image\n" in error


def test_what_cannot_be_timed_or_described_is_said(hyena: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("CUDA error: out of memory\nCompile with ...")

    monkeypatch.setattr(doctor, "HyenaDNA", fail)
    monkeypatch.setattr(doctor, "free_memory", fail)
    code, out, error = hyena("--json")
    report = json.loads(out)
    assert (code, report["speed"]) == (0, [])
    assert report["devices"][0]["free_gib"] is None
    assert "warning: cpu cannot be used: CUDA error: out of memory\n" in error
    assert "warning: float32 cannot be timed on cpu: CUDA error: out of memory\n" in error


def test_a_device_that_is_not_here(hyena: Any) -> None:
    code, out, error = hyena("--device", "tpu")
    assert (code, out) == (2, "")
    assert error.startswith("hyena: error: --device: unknown device 'tpu'")


def test_threads(hyena: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "self_test", lambda *_, **__: iter(SOUND))
    before = torch.get_num_threads()
    report = json.loads(hyena("--json", "--no-speed", "-@", before + 1)[1])
    torch.set_num_threads(before)
    assert report["system"]["threads"] == before + 1


def check(error: float, dtype: str = "float32", device: str = "cpu", name: str = "inference") -> DeviceCheck:
    return DeviceCheck(device, dtype, name, error, tolerance=1e-3, limit=0.1)


SOUND = [check(1e-5), check(5e-4, "bfloat16")]


@pytest.mark.parametrize(
    ("others", "advice"),
    [
        ([], "float32 on cpu (errors up to 1e-05; bfloat16 up to 5e-04)"),
        ([check(2e-2)], "float32 on cpu (errors up to 2e-02, coarser than usual; bfloat16 up to 5e-04)"),
        ([check(1.0, "bfloat16")], "float32 on cpu (errors up to 1e-05)"),
        ([check(1.0)], "bfloat16 on cpu (errors up to 5e-04)"),
        ([check(1.0, "float64")], "nothing on cpu: its numbers are wrong"),
        (
            [check(1.0, "float64", device="cuda:0")],
            "float32 on cpu (errors up to 1e-05; bfloat16 up to 5e-04)",
        ),
    ],
)
def test_advice(others: list[DeviceCheck], advice: str) -> None:
    assert doctor.advice("cpu", [*SOUND, *others]) == advice


def test_nothing_can_be_trusted_where_the_definition_is_wrong() -> None:
    wrong = check(1.0, "float64", name="definition")
    gpu = [check(1e-5, device="cuda:0"), wrong]
    assert doctor.advice("cuda:0", gpu) == "nothing on cuda:0: its numbers are wrong"


@pytest.mark.parametrize(
    ("text", "name", "bfloat16"),
    [
        ("processor : 0\nmodel name\t: EPYC\nflags\t\t: avx2\n\nprocessor : 1\n", "EPYC", "emulated"),
        ("model name : Xeon\nflags : avx2 amx_bf16\n\n", "Xeon", "native"),
        ("processor : 0\nFeatures : fp asimd bf16\n\n", None, "native"),
    ],
)
def test_processors_by_their_own_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, text: str, name: str | None, bfloat16: str
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(doctor, "CPUINFO", path)
    (row,) = doctor.processors([torch.device("cpu")])
    assert row["bfloat16"] == bfloat16
    assert row["name"] == name or (name is None and row["name"])
    assert 0 < row["free_gib"] <= row["total_gib"]


@pytest.mark.parametrize(("major", "bfloat16"), [(7, "emulated"), (9, "native")])
def test_a_gpu(monkeypatch: pytest.MonkeyPatch, major: int, bfloat16: str) -> None:
    about = SimpleNamespace(name="Some GPU", major=major, minor=0, total_memory=8 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: about)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (6 << 30, 8 << 30))
    assert doctor.processors([torch.device("cuda:1")]) == [
        {
            "device": "cuda:1",
            "name": "Some GPU",
            "architecture": f"sm_{major}0",
            "bfloat16": bfloat16,
            "free_gib": 6.0,
            "total_gib": 8.0,
        }
    ]


def test_a_terminal_gets_ruled_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    doctor.print_section([{"a": None, "b": 12345, "c": 1.23456e-5}])
    out = capsys.readouterr().out
    assert "─" in out
    assert "12,345" in out
    assert "1.23e-05" in out
