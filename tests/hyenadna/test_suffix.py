"""Variants read from a reference pass against whole passes of the plain model."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hyenadna import HyenaConfig, HyenaDNA, ModelError, SoftPromptConfig, add_soft_prompt
from hyenadna.engine import products
from hyenadna.engine import suffix as engine
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.engine.tiling import Tiling


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(7, 12, shape, generator=torch.Generator().manual_seed(seed))


def whole(window: torch.Tensor, suffix: Suffix) -> torch.Tensor:
    """The window with the suffix in its place, up to its last token."""
    return torch.cat([window[: suffix.start], suffix.ids])[None]


def check(
    model: HyenaDNA, windows: torch.Tensor, batch: list[Suffix], atol: float, *, first: int = 0
) -> None:
    reference = ReferencePass(model, windows, first)
    with torch.no_grad():
        expected = model.plain(windows).hidden[:, first:]
        torch.testing.assert_close(reference.hidden_BLD, expected, rtol=0, atol=atol)
        states = [model.plain(whole(windows[s.row], s)).hidden[0, s.start :] for s in batch]
        for _ in range(2):  # a pass leaves the reference as it was
            torch.testing.assert_close(reference.suffixes(batch), states, rtol=0, atol=atol)


def prompted(model: HyenaDNA, n_soft: int) -> HyenaDNA:
    """A copy with a soft prompt that changes its answers, or the model itself."""
    if not n_soft:
        return model
    model = copy.deepcopy(model)
    add_soft_prompt(model, SoftPromptConfig(n_soft), base="base")
    torch.nn.init.normal_(model.backbone.prompt.vectors, generator=torch.Generator().manual_seed(n_soft))
    return model


@st.composite
def cases(draw: st.DrawFn, n_soft: int) -> tuple[torch.Tensor, list[Suffix]]:
    b, length, seed = draw(st.integers(1, 3)), draw(st.integers(3, 40 - n_soft)), draw(st.integers(0, 99))
    batch = []
    for i in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, length - 1))
        n = draw(st.integers(1, length - start))
        batch.append(Suffix(draw(st.integers(0, b - 1)), start, ids(n, seed=seed + i + 1)))
    return ids(b, length, seed=seed), batch


@pytest.mark.parametrize("n_soft", [0, 3, 8, 21])  # none, less than the history, as much, more
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sooner=st.sampled_from([0, 1, 40]))
def test_any_suffix_equals_a_whole_pass(
    model: HyenaDNA, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, sooner: int, n_soft: int
) -> None:
    monkeypatch.setattr(engine, "tiling", lambda *_: Tiling(tokens=9, samples=40, block=7, min_channels=3))
    case = data.draw(cases(n_soft))
    first = max(0, min(suffix.start for suffix in case[1]) - sooner)
    check(prompted(model.double(), n_soft), *case, atol=1e-10, first=first)


@pytest.fixture(scope="module")
def wide() -> HyenaDNA:
    config = HyenaConfig(d_model=64, n_layer=3, d_inner=256, l_max=702)
    return HyenaDNA(config, generator=torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("n_soft", [0, 2])
def test_every_kind_of_variant_in_single_precision(wide: HyenaDNA, n_soft: int) -> None:
    windows = ids(2, 700)
    w, other = windows[0], windows[1]
    new = torch.tensor([7])
    batch = [
        Suffix(0, 350, torch.cat([18 - w[350:351], w[351:]])),  # a substitution
        Suffix(0, 350, torch.cat([ids(3, seed=5), w[353:400]])),  # three, the next fifty positions only
        Suffix(0, 100, torch.cat([w[100:101], ids(20, seed=6), w[101:680]])),  # an insertion
        Suffix(1, 100, torch.cat([other[100:101], other[131:], ids(30, seed=7)])),  # a deletion
        Suffix(0, 0, torch.cat([new, w[1:]])),
        Suffix(1, 1, torch.cat([new, other[2:]])),
        Suffix(0, 2, new),
        Suffix(1, 699, new),
        Suffix(0, 350, w[350:].clone()),  # no change at all
        Suffix(0, 8, w[8:30].clone()),
    ]
    check(prompted(wide, n_soft), windows, batch, atol=1e-5)


def test_the_cost_is_that_of_the_suffix(wide: HyenaDNA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "uses_onednn", lambda: False)  # whose products are not counted

    def cost(length: int, start: int, n: int, n_soft: int = 0) -> int:
        model, batch = prompted(wide, n_soft), [Suffix(0, start, ids(n, seed=1))]
        reference = ReferencePass(model, ids(1, length))
        reference.suffixes(batch)  # makes the filters, once for all
        with FlopCounterMode(display=False) as counter:
            reference.suffixes(batch)
        return int(counter.get_total_flops())

    assert cost(200, 100, 50) == cost(700, 600, 50) == cost(200, 100, 50, n_soft=400)
    assert cost(700, 100, 500) > 5 * cost(700, 100, 50)


def test_what_is_kept_is_what_is_promised(wide: HyenaDNA) -> None:
    reference = ReferencePass(wide, ids(2, 50))
    assert reference.n_bytes == 4 * 2 * 50 * 64 * (3 * 3 + 1)
    later = ReferencePass(wide, ids(2, 50), first=30)
    assert later.n_bytes == 4 * 2 * 64 * (3 * 3 * (20 + 8) + 20)  # eight more to project the first with


def test_nothing_to_do(wide: HyenaDNA) -> None:
    assert ReferencePass(wide, ids(1, 10)).suffixes([]) == []


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (Suffix(0, 5, ids(6)), "6 tokens from position 5 does not lie in a window of 10"),
        (Suffix(0, 10, ids(1)), "1 tokens from position 10 "),
        (Suffix(0, -1, ids(1)), "position -1"),
        (Suffix(0, 3, ids(0)), "0 tokens"),
        (Suffix(1, 3, ids(1)), "no window 1 among 1"),
    ],
)
def test_suffixes_outside_their_window(wide: HyenaDNA, suffix: Suffix, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ReferencePass(wide, ids(1, 10)).suffixes([suffix])


def test_suffixes_before_what_is_kept(wide: HyenaDNA) -> None:
    with pytest.raises(ModelError, match="has 10 tokens, but this model takes at most 9 after a soft prompt"):
        ReferencePass(prompted(wide, 693), ids(1, 10))
    with pytest.raises(ModelError, match="position 4 begins before those kept, from 5"):
        ReferencePass(wide, ids(1, 10), first=5).suffixes([Suffix(0, 4, ids(1))])
    for first in (-1, 10):
        with pytest.raises(ModelError, match=f"position {first} does not lie in windows of 10"):
            ReferencePass(wide, ids(1, 10), first=first)


def test_half_precision(wide: HyenaDNA) -> None:
    windows, suffix = ids(1, 300), Suffix(0, 150, ids(150, seed=1))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        (ours,) = ReferencePass(wide, windows).suffixes([suffix])
        plain = wide.plain(whole(windows[0], suffix)).hidden[0, 150:]
    with torch.no_grad():
        exact = wide.plain(whole(windows[0], suffix)).hidden[0, 150:]
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().mean() < 2 * (plain - exact).abs().mean()
