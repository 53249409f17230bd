"""The self-test passes where arithmetic is sound, and says so where it is not."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hyenadna.checks import DeviceCheck, check_definition, reference_numbers, self_test
from hyenadna.engine import inference, pointwise, products
from hyenadna.engine.convolution import Partition, convolve_
from hyenadna.engine.pointwise import gelu_with_slope
from hyenadna.operator import fft_conv

CPU = torch.device("cpu")


def verdicts(checks: list[DeviceCheck]) -> dict[str, str]:
    return {check.check: check.verdict for check in checks}


@pytest.fixture
def fresh_definition() -> Iterator[None]:
    """Let the definition be computed anew, now and after the test."""
    reference_numbers.cache_clear()
    yield
    reference_numbers.cache_clear()


def test_this_machine_is_sound_and_its_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    checks = [check_definition(), *self_test(CPU)]
    assert [check for check in checks if check.verdict != "PASS"] == []
    paths = ["inference", "long", "gradients"]
    of_dtype = [(dtype, path) for dtype in ("float64", "float32", "bfloat16") for path in paths]
    assert [(c.dtype, c.check) for c in checks] == [("float64", "definition"), *of_dtype]
    assert {c.device for c in checks} == {"cpu"}
    assert torch.equal(torch.get_rng_state(), before)


def louder(z_CBL: Tensor, spectrum_CPF: Tensor, part: Partition, *rest: Any) -> None:
    convolve_(z_CBL, spectrum_CPF, part, *rest)
    z_CBL *= 1 + 1e-6


def louder_in_parts(z_CBL: Tensor, spectrum_CPF: Tensor, part: Partition, *rest: Any) -> None:
    (louder if part.parts > 1 else convolve_)(z_CBL, spectrum_CPF, part, *rest)


def late(z_CBL: Tensor, spectrum_CPF: Tensor, part: Partition, *rest: Any) -> None:
    convolve_(z_CBL, spectrum_CPF, part, *rest)
    z_CBL.copy_(z_CBL.roll(1, -1))


def steep(*arguments: Any) -> tuple[Tensor, Tensor]:
    value, slope = gelu_with_slope(*arguments)
    return value, slope * (1 + 1e-6)


def nan_slope(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The gradients of the last layers stay sound."""
    value, slope = gelu_with_slope(*arguments)
    return value, slope * torch.nan


READS = {"inference", "long"}


@pytest.mark.parametrize(
    ("module", "name", "broken", "found"),
    [
        (inference, "convolve_", louder, READS),
        (inference, "convolve_", louder_in_parts, {"long"}),
        (inference, "convolve_", late, READS),
        (inference, "gelu", lambda x, *_: functional.gelu(x), READS),
        (inference, "gelu", lambda x, *_: x * torch.nan, READS),
        (pointwise, "gelu_with_slope", steep, {"gradients"}),
        (pointwise, "gelu_with_slope", nan_slope, {"gradients"}),
    ],
)
def test_a_slightly_wrong_path_is_found(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    broken: object,
    found: set[str],
) -> None:
    monkeypatch.setattr(module, name, broken)
    assert {
        check for check, verdict in verdicts(self_test(CPU, ["float64"])).items() if verdict == "FAIL"
    } == found


def test_a_device_that_cannot_compute_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr(inference, "convolve_", fail)
    checks = self_test(CPU, ["float32"])
    assert verdicts(checks) == {"inference": "FAIL", "long": "FAIL", "gradients": "PASS"}
    assert checks[0].problem == "CUDA error: no kernel image is available"
    assert checks[2].problem == ""


def test_products_of_reduced_precision_are_coarse_but_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(x: Tensor) -> Tensor:
        """To the 11 significant bits of TF32."""
        far = x * (2.0**13 + 1)
        return far - (far - x)

    addmm = torch.addmm
    monkeypatch.setattr(products, "uses_onednn", lambda: False)
    monkeypatch.setattr(torch, "addmm", lambda b, x, y, **to: addmm(b, rounded(x), rounded(y), **to))
    assert set(verdicts(self_test(CPU, ["float32"])).values()) == {"WARN"}


def test_mps_has_no_float64() -> None:
    checks = self_test(torch.device("mps"))  # and where there is no MPS, nothing comes out
    assert {check.dtype for check in checks} == {"float32", "bfloat16"}
    assert torch.backends.mps.is_available() or all(check.problem for check in checks)


@pytest.mark.usefixtures("fresh_definition")
def test_a_wrong_definition_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def louder_conv(v_BDL: Tensor, k_DL: Tensor, skip_D: Tensor) -> Tensor:
        return fft_conv(v_BDL, k_DL * 1.01, skip_D)

    monkeypatch.setattr("hyenadna.operator.fft_conv", louder_conv)
    assert check_definition().verdict == "FAIL"


@pytest.mark.parametrize(
    ("error", "verdict"), [(0.0, "PASS"), (1.0, "PASS"), (1.5, "WARN"), (2.5, "FAIL"), (float("nan"), "FAIL")]
)
def test_verdicts(error: float, verdict: str) -> None:
    assert DeviceCheck("cpu", "float32", "long", error, tolerance=1, limit=2).verdict == verdict
