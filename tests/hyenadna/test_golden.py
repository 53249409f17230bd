"""Equality with the official implementation, on stored outputs of it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from hyenadna import HyenaDNA, load_model, model_sha256, save_model

MICRO, TINY, SMALL = "micro_d32", "tiny_1k_d128", "small_32k_d256_L4096"
CONTAINERS = [
    (MICRO, ""),
    (MICRO, "weights.ckpt"),
    (MICRO, "plain_keys"),
    (MICRO, "plain_keys/weights_tensors_only.ckpt"),
    (MICRO, "hf"),
    (MICRO, "hf/model.safetensors"),
    (MICRO, "multimolecule"),
    (TINY, ""),
    (TINY, "hf"),
    (TINY, "multimolecule"),
    (SMALL, ""),
]
BOS_COLUMN = 2  # MultiMolecule has no row for it


def tolerance(fixture: str, dtype: torch.dtype) -> float:
    return 1e-9 if dtype == torch.float64 else 3e-4 if fixture == SMALL else 1e-4


def close(ours: Tensor, theirs: Tensor, atol: float, rtol: float = 0) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=rtol, atol=atol)


def check_logits(model: HyenaDNA, folder: Path, dtype: torch.dtype, *, mm: bool = False) -> None:
    inputs = load_file(folder / "inputs.safetensors")
    exact, single = (
        load_file(folder / "expected_f64.safetensors"),
        load_file(folder / "expected_f32.safetensors"),
    )
    model, atol = model.to(dtype), tolerance(folder.name, dtype)
    for key, ids_BL in inputs.items():
        if mm and key == "special_all16":
            continue
        with torch.no_grad():
            outputs = [run(ids_BL, hidden_states=True) for run in (model.plain, model)]
        places = single[f"{key}/positions"]
        for out in outputs:
            logits, expected = out.logits, exact[f"{key}/logits"].clone()
            if expected.shape != logits.shape:
                logits = logits[:, places]
            if mm:
                expected[..., BOS_COLUMN] = logits[..., BOS_COLUMN]
            close(logits, expected, atol)
            hidden = exact[f"{key}/last_hidden"]
            close(out.hidden[:, places[: hidden.shape[1]]], hidden, atol)
            if dtype == torch.float32:
                close(out.hidden[:, places], single[f"{key}/last_hidden"], atol)
                for i, state in enumerate(out.hidden_states, start=1):
                    # some residuals are about 100, and both of these 5e-4 from those of float64
                    close(state[:, places], single[f"{key}/resid_{i}"], atol, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(("fixture", "container"), CONTAINERS)
def test_logits_and_states_equal_the_official_ones(
    golden: Path, fixture: str, container: str, dtype: torch.dtype
) -> None:
    model = load_model(golden / fixture / container)
    assert not model.training
    check_logits(model, golden / fixture, dtype, mm=container == "multimolecule")


@pytest.mark.parametrize("fixture", [MICRO, TINY])
def test_native_save_and_load_changes_nothing(golden: Path, fixture: str, tmp_path: Path) -> None:
    model = load_model(golden / fixture)
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert model_sha256(again) == model_sha256(model)
    for (name, before), (_, after) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert torch.equal(before, after), name
    check_logits(again, golden / fixture, torch.float64)


@pytest.mark.parametrize(
    ("fixture", "dtype"),
    [
        (MICRO, torch.float32),
        (MICRO, torch.float64),
        (TINY, torch.float32),
        (TINY, torch.float64),
        (SMALL, torch.float32),
        pytest.param(SMALL, torch.float64, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("path", ["plain", "fast"])
def test_gradients_of_every_parameter(golden: Path, fixture: str, dtype: torch.dtype, path: str) -> None:
    model = load_model(golden / fixture).to(dtype)
    run = model.plain if path == "plain" else model
    ids_BL = load_file(golden / fixture / "inputs.safetensors")["len64" if fixture == MICRO else "len1000"]
    logits = run(ids_BL).logits
    functional.cross_entropy(logits[0, :-1], ids_BL[0, 1:]).backward()
    single = dtype == torch.float32
    stored = load_file(golden / fixture / "gradients.safetensors")
    expected = {
        name.removeprefix("f32/" if single else "f64/"): grad
        for name, grad in stored.items()
        if name.startswith("f32/" if single else "f64/")
    }
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(expected) <= set(ours)
    if fixture == MICRO:
        assert set(expected) == set(ours)
    for name, grad in expected.items():
        scale = 1 + float(grad.abs().max())
        close(ours[name], grad, (1e-3 if single else 1e-9) * scale)


def taps(model: HyenaDNA, ids_BL: Tensor) -> Mapping[str, Tensor]:
    """Every step of layer 0 under the fixture's names, by hooks on the modules."""
    block, seen = model.backbone.blocks()[0], {}
    hooks = {
        "in_proj_out": block.mixer.in_proj,
        "short_conv_out_b_c_l": block.mixer.short_filter,
        "v_times_x1": block.mixer.dropout,
        "mixer_out": block.mixer,
        "norm1_out": block.norm1,
        "norm2_out": block.norm2,
        "fc1_out": block.mlp.fc1,
        "mlp_out": block.mlp,
    }
    for name, module in hooks.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    with torch.no_grad():
        model.plain(ids_BL)
    length = ids_BL.shape[1]
    seen["short_conv_out_b_c_l"] = seen["short_conv_out_b_c_l"][..., :length]
    seen["filter_l_d"] = block.mixer.filter_fn(length).detach().T
    seen["resid_mid"] = model.backbone.embed(ids_BL).detach() + seen["mixer_out"]
    from hyenadna.operator import fft_conv

    seen["fftconv_out"] = fft_conv(
        seen["v_times_x1"], seen["filter_l_d"].T, block.mixer.filter_fn.bias.detach()
    )
    return seen


@pytest.mark.parametrize("fixture", [MICRO, TINY, SMALL])
def test_every_step_of_layer_0_and_every_filter(golden: Path, fixture: str) -> None:
    model = load_model(golden / fixture)
    stored = load_file(golden / fixture / "intermediates.safetensors")
    seen = taps(model, stored["input_ids"])
    steps = {name.removeprefix("l0."): t for name, t in stored.items() if name.startswith("l0.")}
    for name in set(steps) - {"filter_full_rows", "z_rows", "t_rows"}:
        close(seen[name], steps[name], 1e-4)
    rows = stored["filter_rows"]
    for i, block in enumerate(model.backbone.blocks()):
        filter_fn = block.mixer.filter_fn
        longest = min(model.config.l_max, 4096)
        with torch.no_grad():
            close(filter_fn(longest).T[rows], stored[f"l{i}.filter_full_rows"], 1e-5)
        assert torch.equal(filter_fn.pos_emb.z[0, rows], stored[f"l{i}.z_rows"])
        assert torch.equal(filter_fn.pos_emb.t[0, rows], stored[f"l{i}.t_rows"])


@pytest.mark.parametrize("fixture", [MICRO, TINY, SMALL])
def test_closed_form_of_the_buffers(golden: Path, fixture: str) -> None:
    stored, model = load_model(golden / fixture), load_model(golden / fixture)
    fresh = HyenaDNA(model.config)
    for name, buffer in stored.named_buffers():
        close(fresh.get_buffer(name), buffer, 1e-6)


def test_trained_z_of_the_file_wins_and_survives_native(golden: Path, tmp_path: Path) -> None:
    variant = load_file(golden / TINY / "variant_trained_z.safetensors")
    expected = variant.pop("len128/logits")
    weights = load_file(golden / TINY / "hf/model.safetensors")
    assert set(variant) < set(weights)
    save_file(weights | variant, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((golden / TINY / "hf/config.json").read_bytes())
    model = load_model(tmp_path)
    save_model(model, tmp_path / "native")
    ids_BL = load_file(golden / TINY / "inputs.safetensors")["len128"]
    for m in (model, load_model(tmp_path / "native")):
        with torch.no_grad():
            close(m(ids_BL).logits, expected, 1e-4)
    assert model_sha256(model) != model_sha256(load_model(golden / TINY))


def test_window_shift_zero(golden: Path) -> None:
    expected = load_file(golden / TINY / "variant_shift0.safetensors")
    inputs = load_file(golden / TINY / "inputs.safetensors")
    model = load_model(golden / TINY, window_shift=0.0)
    assert model.config.window_shift == 0.0
    for name, logits in expected.items():
        with torch.no_grad():
            close(model(inputs[name.removesuffix("/logits")]).logits, logits, 1e-4)


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("prefix", ["head.", "decoder.0."])
def test_classification_head(golden: Path, tmp_path: Path, pool: str, prefix: str) -> None:
    from dataclasses import replace

    folder = golden / MICRO
    stored = load_file(folder / "classification_head.safetensors")
    head = {n.replace("head.", prefix): t for n, t in stored.items() if n.startswith("head.")}
    body = torch.load(folder / "plain_keys/weights_tensors_only.ckpt", weights_only=True)["state_dict"]
    torch.save({"state_dict": body | head}, tmp_path / "weights.ckpt")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    model = load_model(tmp_path)
    assert model.config.head.n_outputs == 3
    assert (model.config.head.task, model.config.head.pool) == ("multiclass", "mean")
    other = HyenaDNA(replace(model.config, head=replace(model.config.head, pool=pool))).eval()
    other.load_state_dict(model.state_dict())
    for key, ids_BL in load_file(folder / "inputs.safetensors").items():
        name = "pool" if pool == "mean" else pool
        with torch.no_grad():
            out = other(ids_BL)
        close(out.head_logits, stored[f"{key}/class_logits_{name}"], 1e-4)


def test_real_fine_tuned_weights(shared: Path) -> None:
    model = load_model(shared / "data/checkpoints/hyenadna_tiny_1k_finetuned_state_dict.pt")
    assert model.config.head.n_outputs == 2
    assert model.n_parameters == 436_096 + 2 * 128 + 2
    with torch.no_grad():
        out = model(torch.randint(7, 11, (2, 500), generator=torch.Generator().manual_seed(0)))
    assert out.head_logits.shape == (2, 2)
    assert out.head_logits.isfinite().all()


def test_one_hash_whatever_the_format(golden: Path) -> None:
    hashes = {
        model_sha256(load_model(golden / MICRO / path)) for path in ("", "hf", "plain_keys", "weights.ckpt")
    }
    assert len(hashes) == 1
    assert model_sha256(load_model(golden / MICRO, window_shift=0.0)) not in hashes
