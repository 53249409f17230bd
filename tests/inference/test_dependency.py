"""Dependency maps against brute force, and on a model that has learnt a dependence."""

import numpy as np
import pytest
import torch

from hyenacli.inference.dependency import MapOptions, dependency_maps
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine import convolution
from hyenadna.operator import HyenaFilter
from tests.builders import random_dna
from tests.toys import tiny_model

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def by_definition(model: HyenaDNA, bases: str, first: int, end: int, measure: str) -> np.ndarray:
    """One strand's map of bases[first:end], each substitution a plain pass over all of `bases`."""

    def values(text: str) -> np.ndarray:
        ids = torch.from_numpy(Tokenizer().encode_array(text.encode())).long()[None]
        with torch.no_grad():
            logits = model.plain(ids).logits[0, :, 7:11].double()
        p = logits.softmax(-1).numpy() + (1e-10 if measure == "log2odds" else 0)
        p /= p.sum(-1, keepdims=True)
        return np.log2(p / (1 - p)) if measure == "log2odds" else np.log(p)

    result = np.zeros((end - first, end - first))
    before = values(bases)
    for i in range(first, end):
        for base in "ACGT":
            if bases[i] != "N" and base != bases[i]:
                change = np.abs(values(bases[:i] + base + bases[i + 1 :]) - before).max(axis=1)
                for j in range(i + 1, end):
                    row = result[i - first]
                    row[j - first] = max(row[j - first], change[j - 1])
    return result


@pytest.mark.parametrize("measure", ["log2odds", "logp"])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_map_equals_brute_force(measure: str, batch_size: int | None) -> None:
    model, bases = tiny_model(), random_dna(40, 3)
    record = SequenceRecord("x", "chr1", 12, 30, bases=bases.encode(), left=12)
    (answer,) = dependency_maps(model, [record], MapOptions(measure), batch_size=batch_size)
    reverse = bases.translate(COMPLEMENT)[::-1]
    forward = by_definition(model, bases[:30], 12, 30, measure)
    expected = forward + by_definition(model, reverse[:28], 10, 28, measure)[::-1, ::-1]
    assert answer.values_LL is not None
    np.testing.assert_allclose(answer.values_LL, expected, atol=1e-5)
    assert expected.max() > 0.1
    others = answer.values_LL[~np.eye(18, dtype=bool)].reshape(18, 17)
    np.testing.assert_allclose(answer.influence(), others.mean(axis=1), rtol=1e-5)


def test_both_directions_can_be_joined() -> None:
    record = SequenceRecord.of_sequence("x", random_dna(20, 1).encode())
    maps = {
        how: next(dependency_maps(tiny_model(), [record], MapOptions(symmetrize=how))).values_LL
        for how in ("none", "mean", "max")
    }
    plain = maps["none"]
    np.testing.assert_allclose(maps["mean"], (plain + plain.T) / 2, rtol=1e-6)
    np.testing.assert_allclose(maps["max"], np.maximum(plain, plain.T), rtol=1e-6)
    assert not np.allclose(plain, plain.T)


def test_n_has_no_values_and_changes_no_others() -> None:
    bases = random_dna(12, 1)
    record = SequenceRecord.of_sequence("x", f"{bases[:6]}N{bases[7:]}".encode())
    (answer,) = dependency_maps(tiny_model(), [record], MapOptions("logp"))
    unknown = np.isnan(answer.values_LL)
    assert unknown[6].all()
    assert unknown[:, 6].all()
    assert unknown.sum() == 23
    assert np.isnan(answer.influence()).tolist() == [i == 6 for i in range(12)]
    expected = by_definition(tiny_model(), record.bases.decode(), 0, 12, "logp")
    upper = np.triu(np.ones((12, 12), dtype=bool), 1) & ~unknown
    np.testing.assert_allclose(answer.values_LL[upper], expected[upper], atol=1e-5)


def test_what_has_no_map_says_why() -> None:
    records = [
        SequenceRecord.of_sequence("long", b"A" * 30),
        SequenceRecord.of_sequence("none", b"", "EMPTY"),
        SequenceRecord.of_sequence("single", b"C"),
    ]
    answers = list(dependency_maps(tiny_model(), records, MapOptions(max_length=29)))
    assert [answer.record.status for answer in answers] == ["TOO_LONG", "EMPTY", "OK"]
    assert answers[2].values_LL is not None
    assert answers[2].values_LL.tolist() == [[0]]
    assert answers[2].influence().tolist() == [0]
    too_long = dependency_maps(tiny_model(), records[:1], MapOptions(max_length=10**6))
    assert next(too_long).record.status == "OK"
    beyond = [SequenceRecord.of_sequence("x", b"A" * 65)]
    assert next(dependency_maps(tiny_model(), beyond, MapOptions())).record.status == "TOO_LONG"


def test_flanks_are_read_as_far_as_the_model_goes() -> None:
    bases = random_dna(200, 4).encode()
    record = SequenceRecord("x", "c", 90, 110, bases=bases, left=90)
    near = SequenceRecord("x", "c", 90, 110, bases=bases[45:155], left=45)
    whole, cut = (next(dependency_maps(tiny_model(), [r], MapOptions())).values_LL for r in (record, near))
    np.testing.assert_allclose(whole, cut, atol=1e-6)


def test_a_planted_pair_shows_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of j - 1 predicts j: bases depend on the one before and on the one ten before."""
    model = tiny_model()
    for block in model.backbone.blocks():
        block.mixer.short_filter.weight.data[..., :-1] = 0
    first = model.backbone.blocks()[0].mixer.filter_fn

    def lag_of_nine(
        layer: HyenaFilter, features: torch.Tensor, channels: slice, start: int = 0
    ) -> torch.Tensor:
        taps = torch.zeros(16, start + len(features))
        taps[:, 9:10] = 3.0 * (layer is first)
        return taps[channels, start:]

    monkeypatch.setattr(convolution, "filter_taps", lag_of_nine)
    record = SequenceRecord.of_sequence("x", random_dna(30, 5).encode())
    (answer,) = dependency_maps(model, [record], MapOptions("logp"))
    distance = np.arange(30)[None] - np.arange(30)[:, None]
    planted = np.isin(np.abs(distance), (1, 10))
    assert answer.values_LL[planted].min() > 1e-3
    assert answer.values_LL[~planted].max() < 1e-5
