"""The inference pass against the plain model, with pieces so small that every seam is met."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hyenadna import HyenaConfig, HyenaDNA, ModelError
from hyenadna.engine import inference, training
from hyenadna.engine.inference import FINAL, stream_states, token_log_probs
from hyenadna.engine.tiling import Tiling

EXACT = {"rtol": 0, "atol": 1e-10}


def ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of seven tokens, groups of few channels, blocks of nine positions."""
    pieces = Tiling(tokens=7, samples=30, block=9, min_channels=3, row_tokens=20)
    monkeypatch.setattr(inference, "tiling", lambda *_: pieces)
    monkeypatch.setattr(training, "training_tiling", lambda *_: pieces)


@pytest.mark.usefixtures("small_pieces")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 5), length=st.integers(1, 40), letters=st.integers(1, 5), seed=st.integers(0, 99))
def test_equals_the_plain_model(model: HyenaDNA, batch: int, length: int, letters: int, seed: int) -> None:
    model.double()
    tokens = 7 + ids(batch, length, seed) % letters
    with torch.no_grad():
        fast, plain = (run(tokens, hidden_states=True) for run in (model, model.plain))
    torch.testing.assert_close(fast.logits, plain.logits, **EXACT)
    torch.testing.assert_close(fast.hidden, plain.hidden, **EXACT)
    for ours, theirs in zip(fast.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_the_first_block_projects_words_where_they_are_fewer_than_tokens(model: HyenaDNA) -> None:
    def flops(letters: int) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(7 + ids(3, 40) % letters)
        return int(counter.get_total_flops())

    flops(1)  # makes the filters
    d, tokens = model.config.d_model, 120
    assert flops(5) - flops(2) == 2 * 3 * d**2 * (tokens - 2)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(("batch", "length"), [(3, 40), (5, 2), (1, 1)])
@pytest.mark.parametrize("layers", [(FINAL,), (1, 2, FINAL), (2,)])
def test_states_are_streamed_in_order(
    model: HyenaDNA, batch: int, length: int, layers: tuple[int, ...]
) -> None:
    tokens = ids(batch, length)
    with torch.no_grad():
        plain = model.plain(tokens, hidden_states=True)
    expected = {1: plain.hidden_states[0], 2: plain.hidden_states[1], FINAL: plain.hidden}
    seen: dict[int, torch.Tensor] = {layer: torch.full_like(expected[layer], torch.nan) for layer in layers}
    order = []
    for piece in stream_states(model, tokens, layers):
        assert piece.states.shape[0] * piece.states.shape[1] <= 7
        assert seen[piece.layer][piece.tile.rows, piece.tile.positions].isnan().all()
        seen[piece.layer][piece.tile.rows, piece.tile.positions] = piece.states
        order.append((piece.layer % (len(layers) + 2), piece.tile.first_row, piece.tile.start))
    assert order == sorted(order)
    for layer in layers:
        torch.testing.assert_close(seen[layer], expected[layer], rtol=0, atol=1e-5)


@torch.no_grad()
def test_log_probabilities_of_chosen_tokens(model: HyenaDNA) -> None:
    tokens = ids(2, 30)
    targets = ids(2, 30, seed=1)
    logits = model.plain(tokens).logits
    bases = torch.tensor([7, 8, 9, 10])
    expected = logits[..., bases].log_softmax(-1).gather(-1, (targets - 7).clamp(0, 3)[..., None])[..., 0]
    ours = token_log_probs(model, tokens, targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected.masked_fill(targets == 11, 0), rtol=0, atol=1e-5)
    every = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(token_log_probs(model, tokens, targets, None), every, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_changed_filter_is_seen_at_once(model: HyenaDNA) -> None:
    tokens = ids(1, 30)
    before = model(tokens).logits
    for parameter in model.backbone.blocks()[0].mixer.filter_fn.parameters():
        parameter.mul_(1.5)
    assert not torch.allclose(model(tokens).logits, before)
    torch.testing.assert_close(model(tokens).logits, model.plain(tokens).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_half_precision_is_that_of_the_plain_model(model: HyenaDNA) -> None:
    tokens = ids(2, 33)
    exact = model.plain(tokens).hidden
    with torch.autocast("cpu", torch.bfloat16):
        fast, plain = model(tokens), model.plain(tokens)
    assert fast.logits.dtype == plain.logits.dtype == torch.float32
    assert torch.equal(fast.logits, fast.hidden @ model.lm_weight.T)
    assert fast.hidden.dtype == plain.hidden.dtype == torch.float32
    assert (fast.hidden - exact).abs().mean() < 1.5 * (plain.hidden - exact).abs().mean()
    half = HyenaDNA(model.config)
    half.load_state_dict(model.state_dict())
    half.bfloat16().eval()
    assert half(tokens).hidden.dtype == half.plain(tokens).hidden.dtype == torch.bfloat16
    torch.testing.assert_close(half(tokens).hidden.float(), exact, rtol=0.1, atol=0.1)


def test_the_input_is_checked_before_anything_is_done(model: HyenaDNA) -> None:
    with torch.no_grad(), pytest.raises(ModelError, match="41 tokens"):
        model(ids(1, 41))
    with torch.no_grad(), pytest.raises(ModelError, match="is empty"):
        next(stream_states(model, ids(1, 0)))


@pytest.mark.parametrize("taps", [1, 2, 4])
def test_other_short_filters(config: HyenaConfig, taps: int, small_pieces: None) -> None:
    model = HyenaDNA(replace(config, short_filter_order=taps)).double().eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids(2, 25)).logits, model.plain(ids(2, 25)).logits, **EXACT)
