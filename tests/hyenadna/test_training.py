"""The pass with gradients against the plain model's autograd, with pieces so small that every seam is met."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from hyenadna import (
    HeadConfig,
    HyenaConfig,
    HyenaDNA,
    LoraConfig,
    SoftPromptConfig,
    add_lora,
    add_soft_prompt,
    freeze,
)
from hyenadna.engine import training
from hyenadna.engine.mixer import Fixed, MixerWithGradients
from hyenadna.engine.pointwise import MlpWithGradients, gelu, gelu_with_slope
from hyenadna.engine.tiling import Tiling
from hyenadna.engine.training import IGNORED, next_token_loss, recomputed

PIECES = Tiling(
    tokens=7, samples=60, block=1 << 62, min_channels=3, row_tokens=25, feature_rows=16, loss_tokens=11
)
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(params=[0, 1 << 20], ids=["recomputed", "kept"])
def small_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = replace(PIECES, kept_bytes=request.param)
    monkeypatch.setattr(training, "training_tiling", lambda *_: sizes)


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


def gradients(model: HyenaDNA, loss: torch.Tensor) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same(ours: dict[str, torch.Tensor | None], theirs: dict[str, torch.Tensor | None]) -> None:
    for name, gradient in theirs.items():
        if gradient is None:
            assert ours[name] is None, name
        else:
            torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("batch", "length"), [(1, 40), (3, 17), (4, 1), (2, 2)])
@pytest.mark.usefixtures("small_pieces")
def test_gradients_equal_the_plain_ones(
    model: HyenaDNA, batch: int, length: int, checkpointing: bool
) -> None:
    model.double().backbone.activation_checkpointing = checkpointing
    names = list(model.state_dict())
    results = []
    for run in (model, model.plain):
        out = run(tokens(batch, length), hidden_states=True)
        loss = out.logits.square().sum() + out.hidden_states[0].sin().sum() + out.hidden.cos().sum()
        results.append((loss.detach(), gradients(model, loss)))
    torch.testing.assert_close(results[0][0], results[1][0], **EXACT)
    assert_same(results[0][1], results[1][1])
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "trained", ["layers.1.", "norm", "bias", "lora_", "fc1.lora_", "prompt.", "implicit_filter", "head."]
)
@pytest.mark.usefixtures("small_pieces")
def test_frozen_parameters_get_no_gradient(model: HyenaDNA, trained: str, checkpointing: bool) -> None:
    model.set_head(HeadConfig("binary", 1))
    if trained.endswith("lora_"):
        add_lora(model, LoraConfig(rank=3), base="base")
    if trained == "prompt.":
        add_soft_prompt(model, SoftPromptConfig(5, dropout=0.0), base="base")
    model.double().backbone.activation_checkpointing = checkpointing
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained in name)
        if ".lora_B." in name:  # zero at first, which would hide A's gradient
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    results = []
    for run in (model, model.plain):
        out = run(tokens(3, 20))
        results.append(gradients(model, out.logits.square().sum() + out.head_logits.exp().sum()))
    assert_same(*results)
    assert {name for name, g in results[0].items() if g is not None} == {
        n for n in results[0] if trained in n
    }


@pytest.mark.usefixtures("small_pieces")
def test_freezing_changes_no_number_of_the_others(model: HyenaDNA) -> None:
    model.double()
    every = gradients(model, next_token_loss(model, tokens(3, 20), tokens(3, 20, seed=1)))
    for kept in every:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == kept)
        alone = gradients(model, next_token_loss(model, tokens(3, 20), tokens(3, 20, seed=1)))
        assert torch.equal(alone.pop(kept), every[kept]), kept
        assert set(alone.values()) == {None}


class Products(TorchDispatchMode):
    """Counts the multiplications of matrix products."""

    n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in func.__name__:
            a, b = args[-2:]
            self.n += a.shape[0] * a.shape[1] * b.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("small_pieces")
def test_frozen_matrices_and_filters_cost_no_product(model: HyenaDNA) -> None:
    def products(frozen: str) -> int:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not (frozen and frozen in name))
        loss = next_token_loss(model, tokens(3, 20), tokens(3, 20, seed=1))
        with Products() as counted:
            loss.backward()
        return counted.n

    d, length, layers, width = 8, 20, 2, 8
    every, n = products(""), 3 * length
    for matrix, size in (
        ("in_proj.w", 3 * d * d),
        ("out_proj.w", d * d),
        ("fc1.w", 2 * d * d),
        ("fc2.w", 2 * d * d),
    ):
        assert every - products(matrix) == layers * n * size
    # of each sequence the last layer and its input; the hidden layers once more, their inputs and weights
    last, hidden, first = length * d * width, 2 * length * width**2, length * 5 * width
    assert every - products("filter_fn.") == layers * (3 * 2 * last + 3 * hidden + 2 * first)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_frozen_backbone_keeps_nothing(model: HyenaDNA, checkpointing: bool) -> None:
    model.set_head(HeadConfig("binary", 1))
    model.train().backbone.activation_checkpointing = checkpointing
    kept: list[tuple[int, ...]] = []
    for method in ("full", "head"):
        freeze(model, method)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(tuple(t.shape)) or t, lambda t: t
        ):
            hidden = model.hidden(tokens(2, 20))
        assert bool(kept) == hidden.requires_grad == (method == "full")


@pytest.mark.usefixtures("small_pieces")
def test_sliced_loss(model: HyenaDNA) -> None:
    model.double()
    inputs, targets = tokens(3, 20), tokens(3, 20, seed=1)
    targets[targets == 11] = IGNORED
    plain = functional.cross_entropy(
        model.plain(inputs).logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORED
    )
    ours = next_token_loss(model, inputs, targets)
    torch.testing.assert_close(ours, plain, **EXACT)
    assert_same(gradients(model, 0.3 * ours), gradients(model, 0.3 * plain))


def test_a_loss_over_nothing_is_zero(model: HyenaDNA) -> None:
    loss = next_token_loss(model, tokens(1, 5), torch.full((1, 5), IGNORED))
    assert loss.item() == 0
    assert all(g is None or not g.any() for g in gradients(model, loss).values())


def normal(*shape: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradcheck_of_the_mixer(dropout: bool, keep: bool) -> None:
    b, length, d, h = 2, 6, 4, 3
    kept = torch.rand(d, b, length, generator=torch.Generator().manual_seed(0)) < 0.7
    fixed = Fixed(
        eps=1e-5,
        t_L=torch.linspace(0, 1, length, dtype=torch.float64),
        rate_D=torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64),
        shift=0.05,
        kept_DBL=kept if dropout else None,
        share=0.7,
        sizes=replace(PIECES, row_tokens=length, samples=20, min_channels=3),
        keep=keep,
    )
    shapes = [(b, length, d), (d,), (d,), (3 * d, d), (3 * d,), (3 * d, 3), (3 * d,)]
    shapes += [(length, h), (d, h), (d,), (d, d), (d,)]
    arguments = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(lambda *a: MixerWithGradients.apply(*a, fixed), arguments)


@pytest.mark.parametrize("keep", [False, True])
def test_gradcheck_of_the_mlp(keep: bool) -> None:
    shapes = [(9, 4), (4,), (4,), (8, 4), (8,), (4, 8), (4,)]
    arguments = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(lambda *a: MlpWithGradients.apply(*a, 1e-5, 4, keep), arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gelu_and_its_slope(dtype: torch.dtype) -> None:
    x = torch.linspace(-40, 40, 2001, dtype=torch.float64).to(dtype)
    exact = x.double().clone().requires_grad_()
    value = functional.gelu(exact, approximate="tanh")
    (slope,) = torch.autograd.grad(value.sum(), exact)
    atol = 50 * torch.finfo(dtype).eps
    ours = gelu_with_slope(x.clone())
    for got, expected in ((gelu(x.clone()), value), (ours[0], value), (ours[1], slope)):
        torch.testing.assert_close(got.double(), expected.detach(), rtol=atol, atol=atol)


def test_dropout_inside_the_mixer_is_the_plain_one(
    config: HyenaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HyenaDNA(replace(config, hyena_dropout=0.3, embed_dropout=0.0)).double().train()
    draws = {i: torch.rand(2, 8, 20, generator=torch.Generator().manual_seed(i)) for i in range(2)}
    queue = iter([draws[0].transpose(0, 1), draws[1].transpose(0, 1)])
    for block, draw in zip(model.backbone.blocks(), draws.values(), strict=True):
        monkeypatch.setattr(block.mixer.dropout, "forward", lambda x, u=draw: x * (u < 0.7) / 0.7)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(queue))
    fast = model(tokens(2, 20)).logits
    plain = model.plain(tokens(2, 20)).logits
    torch.testing.assert_close(fast, plain, **EXACT)
    assert_same(gradients(model, fast.square().sum()), gradients(model, plain.square().sum()))


def test_checkpointing_draws_the_same_dropout_again(config: HyenaConfig) -> None:
    model = HyenaDNA(replace(config, hyena_dropout=0.2, resid_dropout=0.3)).double().train()
    results = []
    for checkpointing in (False, True):
        model.backbone.activation_checkpointing = checkpointing
        torch.manual_seed(5)
        loss = model(tokens(2, 20)).logits.square().sum()
        torch.manual_seed(99)
        results.append(gradients(model, loss))
        assert torch.initial_seed() == 99
    assert_same(*results)


def test_a_model_in_training_mode_drops_out_also_without_gradients(config: HyenaConfig) -> None:
    model = HyenaDNA(replace(config, resid_dropout=0.5)).train()
    with torch.no_grad():
        assert not torch.equal(model(tokens(1, 20)).logits, model(tokens(1, 20)).logits)


def test_recomputing_gives_no_gradient_where_none_is_wanted() -> None:
    layer = torch.nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    x = torch.ones(2, 3)
    recomputed(layer, x, layer).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [2, 2, 2]
    assert not recomputed(layer.requires_grad_(False), x, layer).requires_grad


def test_half_precision_gradients_are_near_the_plain_ones(model: HyenaDNA) -> None:
    exact = gradients(model, model.plain(tokens(2, 40)).logits.float().square().mean())
    exact = {name: g.clone() for name, g in exact.items()}
    errors = {}
    for name, run in (("fast", model), ("plain", model.plain)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = run(tokens(2, 40)).logits.float().square().mean()
        got = gradients(model, loss)
        assert all(g.dtype == torch.float32 for g in got.values())
        errors[name] = sum(float((got[n] - g).norm() / (g.norm() + 1e-9)) for n, g in exact.items())
    assert errors["fast"] < 1.5 * errors["plain"] + 0.01


def test_neither_loading_nor_training_loads_the_compiler(tmp_path: Path) -> None:
    script = (
        "import sys, torch; from hyenadna import HyenaConfig, HyenaDNA, load_model, save_model\n"
        "save_model(HyenaDNA(HyenaConfig(8, 2, 16, 40)), 'model'); model = load_model('model')\n"
        "model.train(); model.backbone.activation_checkpointing = True\n"
        "model(torch.full((1, 9), 7)).logits.sum().backward()\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
