"""Token by token, the model is what it is in one pass."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hyenadna import HyenaConfig, HyenaDNA, ModelError
from hyenadna.engine.decoding import Decoder, generate

EXACT = {torch.float32: 1e-4, torch.float64: 1e-10}
SMALL = HyenaConfig(d_model=8, n_layer=2, d_inner=16, l_max=40, filter_order=8)
LONG = replace(SMALL, l_max=150)


def make(config: HyenaConfig, dtype: torch.dtype = torch.float64) -> HyenaDNA:
    """A tiny model in which nothing is zero or one."""
    generator = torch.Generator().manual_seed(1)
    model = HyenaDNA(config, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype).eval()


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


def step_by_step(model: HyenaDNA, ids_BL: Tensor, prompt: int) -> Tensor:
    """The logits at the last prompt token and at every later one."""
    decoder = Decoder(model, ids_BL[:, :prompt], ids_BL.shape[1] - prompt)
    return torch.stack([decoder.logits_BV, *(decoder.append(ids_B) for ids_B in ids_BL[:, prompt:].T)], 1)


@torch.no_grad()
def worst(model: HyenaDNA, ids_BL: Tensor, prompt: int) -> float:
    """The largest difference from the plain model on the whole sequence, at any step."""
    plain = model.plain(ids_BL).logits[:, prompt - 1 :]
    return float((step_by_step(model, ids_BL, prompt) - plain).abs().max())


MODELS = {dtype: make(SMALL, dtype) for dtype in EXACT}


@settings(max_examples=40)
@given(
    length=st.integers(1, 40),
    prompt=st.integers(1, 40),
    batch=st.integers(1, 3),
    dtype=st.sampled_from(list(EXACT)),
    seed=st.integers(0, 99),
)
def test_every_step_is_the_plain_model(
    length: int, prompt: int, batch: int, dtype: torch.dtype, seed: int
) -> None:
    assert worst(MODELS[dtype], tokens(batch, length, seed), min(prompt, length)) < EXACT[dtype]


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("prompt", [1, 2, 3, 21])
def test_blocks_of_every_size_up_to_the_end_of_the_context(prompt: int, dtype: torch.dtype) -> None:
    assert worst(make(LONG, dtype), tokens(2, LONG.l_max, prompt), prompt) < EXACT[dtype]


@torch.no_grad()
def test_each_step_equals_a_pass_over_the_tokens_so_far() -> None:
    model, ids_BL = MODELS[torch.float64], tokens(2, 12)
    for place, logits_BV in enumerate(step_by_step(model, ids_BL, 3).unbind(1), start=3):
        plain_BV = model.plain(ids_BL[:, :place]).logits[:, -1]
        torch.testing.assert_close(logits_BV, plain_BV, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("taps", [3, 5])
def test_prompts_of_several_lengths_and_any_choice_of_rows(taps: int) -> None:
    model = make(replace(LONG, short_filter_order=taps))
    lengths, new = [1, 2, 9, 30], 70
    ids_BL, prompts_BL = tokens(4, 100), tokens(4, 30, seed=5)
    for row, length in enumerate(lengths):
        prompts_BL[row, :length] = ids_BL[row, :length]
    decoder = Decoder(model, prompts_BL, new, torch.tensor(lengths))
    rows = torch.arange(4)
    for step in range(new):
        for logits_V, row in zip(decoder.logits_BV, rows.tolist(), strict=True):
            plain_V = model.plain(ids_BL[row : row + 1, : lengths[row] + step]).logits[0, -1]
            torch.testing.assert_close(logits_V, plain_V, rtol=0, atol=1e-10)
        if step in (2, 3, 40):
            chosen = torch.tensor([3, 0, 1, 2, 2]) if step == 3 else torch.arange(len(rows) - 1)
            decoder.select(chosen if step != 3 else chosen[chosen < len(rows)])
            rows = rows[chosen if step != 3 else chosen[chosen < len(rows)]]
        decoder.append(torch.stack([ids_BL[row, lengths[row] + step] for row in rows.tolist()]))


def test_lengths_of_prompts_are_checked(model: HyenaDNA) -> None:
    for lengths in ([0, 3], [1, 4], [1]):
        with pytest.raises(ModelError, match=r"the lengths of 2 prompts must be 1 to 3, not"):
            Decoder(model, tokens(2, 3), 1, torch.tensor(lengths))


@pytest.mark.parametrize("taps", [1, 2, 5])
@pytest.mark.parametrize("prompt", [1, 3, 9])
def test_any_short_filter(taps: int, prompt: int) -> None:
    model = make(replace(SMALL, short_filter_order=taps, tied_head=False))
    assert worst(model, tokens(2, 20), prompt) < 1e-10


def test_room_that_is_not_used_changes_nothing() -> None:
    model, ids_BL = make(LONG), tokens(1, 10)
    decoder = Decoder(model, ids_BL[:, :4], LONG.l_max - 4)
    for place in range(4, 10):
        logits_BV = decoder.append(ids_BL[:, place])
    torch.testing.assert_close(logits_BV, step_by_step(model, ids_BL, 4)[:, -1], rtol=0, atol=1e-10)


def test_half_precision_weights_keep_an_exact_convolution() -> None:
    model = make(LONG, torch.bfloat16)
    assert worst(model, tokens(1, LONG.l_max), 5) < 0.1


def test_neither_dropout_nor_gradients() -> None:
    config = replace(SMALL, embed_dropout=0.5, resid_dropout=0.5, hyena_dropout=0.5)
    model, ids_BL = make(config), tokens(1, 12)
    still = step_by_step(model, ids_BL, 4)
    moving = step_by_step(model.train(), ids_BL, 4)
    assert torch.equal(still, moving)
    assert not moving.requires_grad


def test_a_refused_step_changes_nothing(model: HyenaDNA) -> None:
    ids_BL = tokens(2, 8)
    decoder = Decoder(model, ids_BL[:, :4], 4)
    for place in range(4, 8):
        with pytest.raises(ModelError, match=r"takes 2 ids, not a tensor \(3,\)"):
            decoder.append(torch.tensor([7, 7, 7]))
        with pytest.raises(IndexError):
            decoder.append(torch.tensor([7, 99]))
        decoder.append(ids_BL[:, place])
    torch.testing.assert_close(decoder.logits_BV, step_by_step(model, ids_BL, 4)[:, -1])
    with pytest.raises(ModelError, match=r"has room for 4 new tokens; make it with more"):
        decoder.append(ids_BL[:, 0])


def test_what_does_not_fit_is_refused_at_once(model: HyenaDNA) -> None:
    Decoder(model, tokens(1, 30), 10)
    with pytest.raises(ModelError, match=r"a prompt of 30 tokens and 11 new ones exceed the model's 40; "):
        Decoder(model, tokens(1, 30), 11)
    with pytest.raises(ModelError, match=r"must not be negative, but is -1"):
        Decoder(model, tokens(1, 3), -1)
    for shape in ((3,), (1, 0)):
        with pytest.raises(ModelError, match=r"a prompt must be \(batch, length\)"):
            Decoder(model, torch.zeros(shape, dtype=torch.int64), 1)


@torch.no_grad()
def greedy_by_passes(model: HyenaDNA, ids_BL: Tensor, n: int) -> Tensor:
    start = ids_BL.shape[1]
    for _ in range(n):
        best_B = model.plain(ids_BL).logits[:, -1, 7:11].argmax(-1) + 7
        ids_BL = torch.cat([ids_BL, best_B[:, None]], dim=1)
    return ids_BL[:, start:]


@settings(max_examples=15)
@given(prompt=st.integers(1, 20), n=st.integers(1, 21), batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_greedy_is_greedy_by_full_passes(prompt: int, n: int, batch: int, seed: int) -> None:
    model, ids_BL = MODELS[torch.float64], tokens(batch, prompt, seed)
    expected = greedy_by_passes(model, ids_BL, n)
    assert torch.equal(generate(model, ids_BL, n, temperature=0), expected)
    assert torch.equal(generate(model, ids_BL, n, temperature=1e-320), expected)


def test_samples_are_reproducible_bases(model: HyenaDNA) -> None:
    def sample(seed: int, **options: Any) -> Tensor:
        return generate(model, tokens(3, 5), 30, generator=torch.Generator().manual_seed(seed), **options)

    first = sample(1)
    assert first.shape == (3, 30)
    assert first.dtype == torch.int64
    assert torch.equal(first, sample(1))
    assert not torch.equal(first, sample(2))
    assert first.unique().tolist() == [7, 8, 9, 10]
    assert set(sample(1, temperature=1e9, among=(0, 12)).unique().tolist()) == set(range(12))


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_samples_follow_the_scores(model: HyenaDNA, temperature: float) -> None:
    prompt_BL = tokens(1, 6).expand(20_000, 6)
    drawn_B = generate(
        model, prompt_BL, 1, temperature=temperature, generator=torch.Generator().manual_seed(0)
    )
    shares = torch.bincount(drawn_B[:, 0], minlength=11)[7:].double() / len(drawn_B)
    wanted = (model.plain(prompt_BL[:1]).logits[0, -1, 7:11].double() / temperature).softmax(-1)
    assert wanted.amax() > 0.3
    torch.testing.assert_close(shares, wanted, rtol=0, atol=0.02)


def test_the_last_token_may_be_one_past_the_context(model: HyenaDNA) -> None:
    assert generate(model, tokens(1, 30), 11).shape == (1, 11)
    with pytest.raises(ModelError, match=r"exceed the model's 40"):
        generate(model, tokens(1, 30), 12)


def test_impossible_requests(model: HyenaDNA) -> None:
    with pytest.raises(ModelError, match=r"at least 1, not 0"):
        generate(model, tokens(1, 3), 0)
    for temperature in (-1.0, float("nan")):
        with pytest.raises(ModelError, match=r"the temperature must not be negative"):
            generate(model, tokens(1, 3), 2, temperature=temperature)


class Work(TorchDispatchMode):
    """Counts the numbers that go into and come out of operations; views are free."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        views = [r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns]
        if not any(views):
            numbers = tree_leaves((args, result))
            self.total += sum(item.numel() for item in numbers if isinstance(item, Tensor))
        return result


def work_of(model: HyenaDNA, n: int) -> int:
    decoder, ids_nB = Decoder(model, tokens(1, 3), n), tokens(n, 1)
    with Work() as counter:
        for ids_B in ids_nB:
            decoder.append(ids_B)
    return counter.total


def test_the_cost_is_almost_proportional_to_the_tokens() -> None:
    model = make(replace(SMALL, n_layer=1, l_max=600), torch.float32)
    few, many = work_of(model, 128), work_of(model, 512)
    assert 4 * few < many < 6 * few  # each position's whole history would make it 8
