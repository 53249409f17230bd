"""The partitioned convolution, and the spectra it keeps, against the direct sum and the plain filter."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna import HyenaDNA
from hyenadna.engine.convolution import (
    Partition,
    SpectrumCache,
    convolve_,
    fft_length,
    filter_block_spectrum,
    filter_features,
    filter_taps,
    partition,
)
from hyenadna.engine.tiling import Tiling
from hyenadna.operator import direct_conv

SMALL = Tiling(tokens=8, samples=40, block=8)


@given(st.integers(1, 1 << 21))
def test_fft_lengths_are_even_large_enough_and_of_small_primes(at_least: int) -> None:
    n = fft_length(at_least)
    assert n >= at_least
    assert n % 2 == 0
    assert n < 2 * max(2, at_least)
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    assert n == 1


@settings(max_examples=60)
@given(
    length=st.integers(1, 70),
    longer=st.integers(0, 30),
    channels=st.integers(1, 3),
    batch=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_any_partition_gives_the_direct_sum(
    length: int, longer: int, channels: int, batch: int, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(batch, channels, length, generator=g, dtype=torch.float64)
    k = torch.randn(channels, length + longer, generator=g, dtype=torch.float64)
    skip = torch.randn(channels, generator=g, dtype=torch.float64)
    part = partition(length + longer, SMALL)
    z = v.transpose(0, 1).clone()
    spectrum = torch.empty(part.parts, channels, part.block + 1, dtype=torch.complex128)
    for j in range(part.parts):
        taps = k[:, j * part.block : (j + 1) * part.block]
        filter_block_spectrum(taps, None if j else skip, part, spectrum[j])
    convolve_(z, spectrum, part)
    torch.testing.assert_close(z.transpose(0, 1), direct_conv(v, k, skip), rtol=0, atol=1e-12)


def test_short_inputs_have_one_part_and_long_ones_blocks() -> None:
    assert partition(16, SMALL) == Partition(16, 1)
    assert partition(17, SMALL) == Partition(6, 3)
    assert partition(160_002, Tiling(64, 64, 1 << 16)) == Partition(65_536, 3)
    assert partition(1026, Tiling(64, 64, 1 << 16)) == Partition(1152, 1)


@pytest.mark.parametrize("channels", [slice(0, 8), slice(3, 5)])
def test_taps_of_a_group_are_the_plain_filter(model: HyenaDNA, channels: slice) -> None:
    layer = model.backbone.blocks()[1].mixer.filter_fn
    with torch.no_grad():
        taps = filter_taps(layer, filter_features(layer, 40), channels)
        torch.testing.assert_close(taps, layer(40)[channels], rtol=0, atol=1e-6)


def test_features_in_slices(model: HyenaDNA) -> None:
    layer = model.backbone.blocks()[0].mixer.filter_fn
    with torch.no_grad():
        whole = filter_features(layer, 40)
        torch.testing.assert_close(filter_features(layer, 40, rows=16), whole, rtol=0, atol=1e-6)


def read(cache: SpectrumCache, model: HyenaDNA, length: int, index: int = 0) -> torch.Tensor:
    filters = [block.mixer.filter_fn for block in model.backbone.blocks()]
    spectra = cache.spectra(filters, index, partition(length, SMALL))
    with torch.no_grad():
        groups = spectra.groups([slice(0, 3), slice(3, 8)])
        return torch.cat([spectrum.clone() for _, spectrum in groups], dim=1)


@torch.no_grad()
def test_spectra_are_kept_until_the_filter_changes(model: HyenaDNA) -> None:
    cache = SpectrumCache()
    first = read(cache, model, 12)
    held = cache.n_bytes
    assert held == 8 * 13 * 8  # channels, frequencies, bytes of a complex number
    assert torch.equal(read(cache, model, 12), first)
    assert cache.n_bytes == held
    model.backbone.blocks()[0].mixer.filter_fn.bias += 1
    assert not torch.allclose(read(cache, model, 12), first)
    assert cache.n_bytes == held
    cache.drop()
    assert cache.n_bytes == 0


@torch.no_grad()
def test_a_bound_on_memory_keeps_the_lengths_last_used(model: HyenaDNA) -> None:
    n_layers = len(model.backbone.blocks())
    one, two = (8 * (block + 1) * 8 * n_layers for block in (12, 15))
    cache = SpectrumCache(max_bytes=one + two)
    expected = {length: read(SpectrumCache(0), model, length) for length in (12, 15, 16, 30)}
    for length in (12, 15, 12, 16, 30, 12):
        torch.testing.assert_close(read(cache, model, length), expected[length], rtol=0, atol=1e-6)
        assert cache.n_bytes <= cache.max_bytes
    nothing = SpectrumCache(max_bytes=one - 1)
    read(nothing, model, 12)
    assert nothing.n_bytes == 0


@torch.no_grad()
def test_a_copied_model_has_spectra_of_its_own(model: HyenaDNA) -> None:
    model(torch.full((1, 12), 7))
    assert model.backbone.spectra.n_bytes
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.backbone.spectra.n_bytes == 0
        assert torch.equal(twin(torch.full((1, 12), 7)).logits, model(torch.full((1, 12), 7)).logits)


@torch.no_grad()
def test_training_frees_the_spectra(model: HyenaDNA) -> None:
    model(torch.full((1, 12), 7))
    model.train()
    assert model.backbone.spectra.n_bytes == 0
