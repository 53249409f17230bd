import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.errors import UsageError
from hyenacli.inference.embedding_options import (
    Pooling,
    choose_layers,
    parse_embedding_options,
    parse_layer,
    parse_pool,
)

PLAIN = {"pool": "mean", "layer": "-1", "rc": "none", "stranded": False, "window": None, "stride": None}


@pytest.mark.parametrize("text", ["mean", "last", "max", "none"])
def test_words_are_poolings(text: str) -> None:
    assert parse_pool(text) == Pooling(text)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        *(("pool", text, "--pool: unknown pooling.*mean, last, max, none or center:N")
          for text in ("", "avg", "center", "center:", "center:0", "center:-1", "center:x", "mean:3", "sum")),
        *(("layer", text, "--layer: unknown layer") for text in ("", "0", "-2", "1.5", "last")),
    ],
)  # fmt: skip
def test_unknown_words_name_the_known(setting: str, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_embedding_options(**{**PLAIN, setting: value})


def test_a_stride_beyond_the_window_would_skip_bases() -> None:
    with pytest.raises(UsageError, match="a stride of 5 skips bases between windows of 4"):
        parse_embedding_options(**{**PLAIN, "window": 4, "stride": 5})
    assert parse_embedding_options(**{**PLAIN, "window": 4, "stride": 4}).stride == 4


def test_layers() -> None:
    assert choose_layers(parse_layer("-1"), 2) == (-1,)
    assert choose_layers(parse_layer("2"), 2) == (2,)
    assert choose_layers(parse_layer("all"), 2) == (1, 2, -1)
    with pytest.raises(UsageError, match="no block 3; its blocks are 1 to 2"):
        choose_layers(3, 2)


@given(st.integers(1, 30), st.integers(1, 40))
def test_both_readings_pool_the_same_central_bases(length: int, size: int) -> None:
    start, end = Pooling("center", size).span(length, reverse=False)
    assert end - start == min(size, length)
    assert abs(start - (length - end)) <= 1
    assert Pooling("center", size).span(length, reverse=True) == (length - end, length - start)


@given(st.sampled_from(["mean", "max", "none"]), st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_pooling_does_not_see_the_windows(kind: str, sizes: list[int]) -> None:
    pooling, n = Pooling(kind), sum(sizes)
    states_nKD = torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(n))
    parts = [pooling.reduce(part).numpy() for part in states_nKD.split(sizes)]
    whole = {"mean": states_nKD.mean(0, True), "max": states_nKD.amax(0, True), "none": states_nKD}[kind]
    np.testing.assert_allclose(pooling.combine(parts, n), whole.numpy(), atol=1e-6)
