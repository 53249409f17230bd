"""How far filters reach: against a loop over the taps of their definition."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.inference.filters import layer_filters
from hyenadna import save_model
from tests.toys import tiny_model


@torch.no_grad()
def test_lengths_are_those_of_the_taps() -> None:
    model = tiny_model()
    layers = list(layer_filters(model))
    assert [layer.layer for layer in layers] == [1, 2]
    for layer, block in zip(layers, model.backbone.blocks(), strict=True):
        taps_DL = block.mixer.filter_fn(model.config.context).abs().double()
        for channel, taps in enumerate(taps_DL.tolist()):
            assert layer.mass_C[channel] == pytest.approx(sum(taps))
            for share, lengths in ((0.5, layer.half_mass_C), (0.99, layer.mass_99_C)):
                reach = next(n for n in range(1, 65) if sum(taps[:n]) >= share * sum(taps))
                assert abs(lengths[channel] - reach) <= 1
        assert layer.share_L[-1] == pytest.approx(1)


class _Device(TorchFunctionMode):
    """A device without float64, of whose tensors NumPy reads none: those that no `cpu()` has copied."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        copied = func is Tensor.cpu or any(hasattr(value, "copied") for value in args)
        assert copied or func not in (Tensor.double, Tensor.numpy)
        if copied and isinstance(result, Tensor):
            result.copied = True  # type: ignore[attr-defined]
        return result


def test_filters_are_measured_on_any_device() -> None:
    with _Device():
        (layer,) = layer_filters(tiny_model(), [2])
    assert layer.layer == 2


def test_a_filter_with_one_tap_reaches_as_far_as_it() -> None:
    model = tiny_model()
    for block in model.backbone.blocks():
        layer = block.mixer.filter_fn
        layer.modulation.shift = 0.0
        layer.modulation.deltas.fill_(1e6)  # nothing is left beyond the current base
    assert {int(n) for layer in layer_filters(model) for n in layer.mass_99_C} == {1}


def test_the_command_writes_a_row_for_every_filter(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model")
    line = ["models", "info", str(tmp_path / "model"), "--filters"]
    result = CliRunner().invoke(
        app, [*line, str(tmp_path / "f.tsv"), "--filters-plot", str(tmp_path / "f.svg")]
    )
    assert result.exit_code == 0, result.stderr
    assert "half_mass median" in result.stdout
    header, *rows = (tmp_path / "f.tsv").read_text().splitlines()
    assert header.split("\t")[:4] == ["layer", "channel", "half_mass", "mass_99"]
    assert len(rows) == 2 * 16
    assert "bases back" in (tmp_path / "f.svg").read_text()
    refused = CliRunner().invoke(app, [*line, str(tmp_path / "f.txt")])
    assert refused.exit_code == 2
