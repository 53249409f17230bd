"""The model's own promises, on tiny fresh models."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from hyenadna import PRESETS, HeadConfig, HyenaConfig, HyenaDNA, ModelError, preset
from hyenadna.heads import build_head, pool
from hyenadna.operator import direct_conv, fft_conv, positional_features

# trainable numbers and z + t of the published models
PUBLISHED = {
    "tiny-1k": (436_096, 12_312),
    "tiny-1k-d256": (1_641_088, 12_312),
    "tiny-16k": (436_096, 196_632),
    "small-32k": (3_277_568, 786_480),
    "medium-160k": (6_550_528, 7_680_096),
    "medium-450k": (6_550_528, 21_600_096),
    "large-1m": (6_550_528, 48_000_096),
}


def ids(length: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    model = HyenaDNA(preset(name))
    positions = sum(p.z.numel() + p.t.numel() for p in model.backbone.positional())
    assert (model.n_parameters, positions) == PUBLISHED[name]
    assert len({p.z.data_ptr() for p in model.backbone.positional()}) == 1


def test_presets_are_the_published_ones() -> None:
    assert list(PRESETS) == list(PUBLISHED)
    for name in ("hyenadna-tiny-16k-seqlen-d128", "tiny-16k", "LongSafari/hyenadna-tiny-16k-seqlen-d128-hf"):
        assert preset(name) is PRESETS["tiny-16k"]
    with pytest.raises(ModelError, match=r"no preset 'tiny'; known: tiny-1k, "):
        preset("tiny")


@settings(max_examples=25)
@given(length=st.integers(1, 40), channels=st.integers(1, 5), batch=st.integers(1, 3), seed=st.integers(0, 9))
def test_fft_convolution_is_the_direct_sum(length: int, channels: int, batch: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(batch, channels, length, generator=g, dtype=torch.float64)
    k, skip = torch.randn(channels, length, generator=g).double(), torch.randn(channels, generator=g).double()
    torch.testing.assert_close(fft_conv(v, k, skip), direct_conv(v, k, skip), rtol=0, atol=1e-12)


def test_direct_convolution_by_hand() -> None:
    v, k = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[10.0, 1.0, 0.5]])
    assert direct_conv(v, k, torch.tensor([100.0])).tolist() == [[[110.0, 221.0, 332.5]]]


@settings(max_examples=20)
@given(length=st.integers(2, 40), place=st.integers(0, 39), seed=st.integers(0, 99))
def test_causal(length: int, place: int, seed: int) -> None:
    model = HyenaDNA(HyenaConfig(8, 2, 16, 40), generator=torch.Generator().manual_seed(seed)).double().eval()
    place %= length
    edited, original = ids(length, seed=seed), ids(length, seed=seed)
    edited[0, place] = 7 + (edited[0, place] - 7 + 1) % 5
    with torch.no_grad():
        moved = (model(edited).logits - model(original).logits).abs().amax(-1)[0]
    assert (moved[:place] < 1e-12).all()
    assert moved[place] > 1e-9


@pytest.mark.parametrize("length", [1, 2, 7, 20, 39])
def test_a_prefix_gives_what_it_gives_in_the_whole(model: HyenaDNA, length: int) -> None:
    whole = ids(40)
    with torch.no_grad():
        torch.testing.assert_close(
            model(whole[:, :length]).logits, model(whole).logits[:, :length], rtol=0, atol=1e-5
        )


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=2, max_size=4), how=st.sampled_from(["mean", "last", "max"])
)
def test_right_padding_and_batch_mates_change_nothing(lengths: list[int], how: str) -> None:
    head = HeadConfig(task="multiclass", n_outputs=3, pool=how)
    g = torch.Generator().manual_seed(3)
    model = HyenaDNA(HyenaConfig(8, 2, 16, 40, head=head), generator=g).eval()
    batch, mask = torch.full((len(lengths), 30), 4), torch.zeros(len(lengths), 30, dtype=torch.bool)
    for row, length in enumerate(lengths):
        batch[row, :length], mask[row, :length] = ids(length, seed=row)[0], True
    with torch.no_grad():
        together = model(batch, mask_BL=mask)
        for row, length in enumerate(lengths):
            alone = model(batch[row : row + 1, :length])
            torch.testing.assert_close(together.logits[row, :length], alone.logits[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(together.head_logits[row], alone.head_logits[0], rtol=0, atol=1e-5)


def test_left_padding_is_input(model: HyenaDNA) -> None:
    padded = torch.cat([torch.full((1, 5), 4), ids(10)], 1)
    with torch.no_grad():
        assert (model(padded).logits[:, 5:] - model(ids(10)).logits).abs().max() > 1e-3


def test_longer_than_the_model(model: HyenaDNA) -> None:
    assert model(ids(40)).logits.shape == (1, 40, 16)
    with pytest.raises(ModelError, match=r"has 41 tokens, but this model takes at most 40; cut it"):
        model(ids(41))
    with pytest.raises(ModelError, match="empty"):
        model(ids(0))
    with pytest.raises(ModelError, match=r"\(batch, length\), not \(10,\)"):
        model(ids(10)[0])


def test_features_belong_to_l_max_not_to_the_input() -> None:
    z, t = positional_features(10, 5)
    assert (z.shape, t.shape, z.dtype) == ((1, 10, 5), (1, 10, 1), torch.float32)
    assert t[0, :, 0].tolist() == pytest.approx([n / 9 for n in range(10)])
    n = torch.arange(10, dtype=torch.float64)
    for column, sign, wave, band in ((1, 1, torch.cos, 1e-4), (2, 1, torch.cos, 1), (3, -1, torch.sin, 1e-4)):
        torch.testing.assert_close(
            z[0, :, column].double(), sign * wave(band * 2 * torch.pi * n / 10), rtol=0, atol=1e-6
        )
    assert not torch.allclose(positional_features(12, 5)[0][:, :10], z, atol=1e-3)


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_window_falls_to_its_shift(config: HyenaConfig, shift: float) -> None:
    model = HyenaDNA(replace(config, window_shift=shift))
    fn = model.backbone.blocks()[0].mixer.filter_fn
    window = fn.modulation(fn.pos_emb.t, torch.ones(1, 40, 8)).detach()[0]
    assert window[0].tolist() == pytest.approx([1 + shift] * 8)
    assert window[-1].tolist() == pytest.approx(
        [0.01 ** (1 / 1.5 + i / 7 * (1 / 0.3 - 1 / 1.5)) + shift for i in range(8)], rel=1e-4
    )


def test_initialisation() -> None:
    config = HyenaConfig(64, 8, 256, 40, tied_head=False)
    model = HyenaDNA(config, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    block = model.backbone.blocks()[3]
    linear = block.mixer.filter_fn.implicit_filter
    for module, std in (
        (block.mixer.in_proj, 0.02),
        (block.mlp.fc1, 0.02),
        (linear[2], 0.02),
        (linear[6], 0.02),
        (block.mixer.out_proj, 0.005),
        (block.mlp.fc2, 0.005),
    ):
        assert float(module.weight.std()) == pytest.approx(std, rel=0.1)
        assert module.bias is None or not module.bias.any()
    assert float(model.backbone.embeddings.word_embeddings.weight.std()) == pytest.approx(0.02, rel=0.1)
    assert float(model.lm_head.weight.std()) == pytest.approx(0.02, rel=0.1)
    assert float(block.mixer.filter_fn.bias.std()) == pytest.approx(1, rel=0.3)
    assert set(linear[1].freq.flatten().tolist()) == {10.0}
    taps = block.mixer.short_filter.weight
    assert 0.5 < float(taps.abs().max()) <= 3**-0.5
    assert float(taps.std()) == pytest.approx(1 / 3, rel=0.1)
    again = HyenaDNA(config, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_parameter_groups_cover_everything_once(config: HyenaConfig) -> None:
    model = HyenaDNA(replace(config, head=HeadConfig(task="binary", n_outputs=2)))
    decayed, free = model.parameter_groups(lr=6e-4, weight_decay=0.1)
    assert [g["weight_decay"] for g in (decayed, free)] == [0.1, 0.0]
    assert [g["lr"] for g in (decayed, free)] == [6e-4, 6e-4]
    names = {id(p): n for n, p in model.named_parameters()}
    assert {id(p) for g in (decayed, free) for p in g["params"]} == set(names)
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    assert {names[id(p)].split(".mixer.filter_fn.")[1] for p in free["params"]} == {
        f"implicit_filter.{n}"
        for n in ("0.weight", "0.bias", "1.freq", "2.weight", "2.bias", "4.weight", "4.bias")
    } | {"implicit_filter.6.weight"}
    model.backbone.requires_grad_(False)
    assert [len(g["params"]) for g in model.parameter_groups(1e-3, 0.1)] == [2]


def test_shared_frequency_is_one_parameter(config: HyenaConfig) -> None:
    shared, apart = HyenaDNA(config), HyenaDNA(replace(config, shared_freq=False))
    assert apart.n_parameters - shared.n_parameters == 2 * config.n_layer * config.filter_order


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_filter_and_residual_in_float32(model: HyenaDNA, dtype: torch.dtype) -> None:
    with torch.no_grad():
        exact = model(ids(40)).logits
        low = copy.deepcopy(model).to(dtype)
        fn = low.backbone.blocks()[0].mixer.filter_fn
        assert {t.dtype for t in (*fn.parameters(), *fn.buffers())} == {torch.float32}
        assert low.lm_weight.dtype == dtype
        out = low(ids(40), hidden_states=True)
        assert {s.dtype for s in out.hidden_states} == {torch.float32}
        assert (out.logits.float() - exact).abs().max() < 0.1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            auto = model(ids(40), hidden_states=True)
        assert {s.dtype for s in auto.hidden_states} == {torch.float32}
        assert (auto.logits.float() - exact).abs().max() < 0.1


def test_float64_stays_float64(model: HyenaDNA) -> None:
    out = model.double()(ids(9), hidden_states=True)
    assert {t.dtype for t in (out.logits, out.hidden, *out.hidden_states)} == {torch.float64}


def test_layers_share_positions_after_every_move(config: HyenaConfig) -> None:
    model = copy.deepcopy(HyenaDNA(config)).double().float()
    first, second = model.backbone.positional()
    assert first.z is second.z
    assert first.t is second.t
    second.z = second.z + 1
    model.double()
    assert second.z is not first.z


def test_dropout_only_in_training(config: HyenaConfig) -> None:
    model = HyenaDNA(replace(config, embed_dropout=0.5))
    torch.manual_seed(0)
    assert not torch.equal(model(ids(9)).logits, model(ids(9)).logits)
    model.eval()
    assert torch.equal(model(ids(9)).logits, model(ids(9)).logits)


def test_blocks_can_be_recomputed(config: HyenaConfig) -> None:
    model = HyenaDNA(replace(config, resid_dropout=0.2, embed_dropout=0.2))
    grads = []
    for recompute in (False, True):
        torch.manual_seed(0)
        if recompute:
            for block in model.backbone.blocks():
                block.forward = lambda r, f=block.forward: checkpoint(f, r, use_reentrant=False)
        model.zero_grad()
        model(ids(20)).logits.square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-6, atol=1e-6)


def test_pools_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 5.0], [3.0, 1.0], [torch.nan, torch.inf]]])
    mask = torch.tensor([[True, True, False]])
    assert pool(hidden, "mean", mask).tolist() == [[2.0, 3.0]]
    assert pool(hidden, "last", mask).tolist() == [[3.0, 1.0]]
    assert pool(hidden, "max", mask).tolist() == [[3.0, 5.0]]
    assert pool(hidden[:, :2], "last").tolist() == [[3.0, 1.0]]


def test_an_autocast_does_not_round_the_unit_of_numbers() -> None:
    head = build_head(8, HeadConfig(task="regression", n_outputs=1, center=(1000.3,), scale=(0.5,)))
    torch.nn.init.zeros_(head.output_transform.weight)
    torch.nn.init.zeros_(head.output_transform.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert head.project(torch.ones(1, 8)).item() == pytest.approx(1000.3, abs=1e-4)
    assert head.double().project(torch.ones(1, 8).double()).item() == 1000.3


def test_nucleotide_head(config: HyenaConfig) -> None:
    head = HeadConfig(task="multilabel", n_outputs=3, level="nucleotide", bias=False)
    model = HyenaDNA(replace(config, head=head)).eval()
    out = model(ids(9, batch=2))
    assert out.head_logits.shape == (2, 9, 3)
    torch.testing.assert_close(out.head_logits, out.hidden @ model.head.output_transform.weight.T)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model must be 1 to 16,777,216, not 0"),
        ({"l_max": 1}, "l_max must be 2 to 16,777,216, not"),
        ({"emb_dim": 4}, "emb_dim must be odd"),
        ({"embed_dropout": 1.0}, "embed_dropout must lie in"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be positive"),
        ({"n_inner_mlps": -1}, "n_inner_mlps must be 0 to 16,777,216, not -"),
    ],
)
def test_impossible_architectures(config: HyenaConfig, wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(config, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"task": "cluster"}, {"pool": "sum"}, {"level": "exon"}, {"n_outputs": 0}, {"labels": ("a",)}]
)
def test_impossible_heads(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        HeadConfig(**{"task": "binary", "n_outputs": 2, **wrong})
