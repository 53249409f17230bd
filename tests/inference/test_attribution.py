"""Attributions equal those of the plain model: each substitution by itself, and finite differences."""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import pytest
import torch

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.attribution import (
    Attribution,
    AttributionOptions,
    attribute,
    choose_target,
    target_contrasts,
)
from hyenacli.inference.prediction import prediction_head, prediction_options
from hyenacli.readers.records import EMPTY, SequenceRecord
from hyenadna import HyenaDNA, SoftPromptConfig, Tokenizer, add_soft_prompt
from hyenadna.config import HeadConfig
from tests.builders import random_dna
from tests.toys import tiny_model

POOLS = ("mean", "last", "max")
UNITS = HeadConfig("regression", 2, ("a", "b"), center=(3.0, -1.0), scale=(2.0, 0.5))


def with_head(head: HeadConfig) -> HyenaDNA:
    model = tiny_model()
    model.set_head(head, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.head.output_transform.weight.mul_(20)
    return model


def record(bases: str, strand: str = "+", name: str = "r") -> SequenceRecord:
    return SequenceRecord(name, "chr1", 100, 100 + len(bases), strand, bases=bases.encode())


def attributed(
    model: HyenaDNA, *records: SequenceRecord, rc: bool = False, stranded: bool = False, **options: object
) -> list[Attribution]:
    reading = prediction_options(prediction_head(model), rc=rc, stranded=stranded)
    return list(attribute(model, records, AttributionOptions(**options), reading, batch_size=5))


def plain_scores(model: HyenaDNA, inputs: Sequence[bytes], *, rc: bool) -> np.ndarray:
    """The score of each value (N, V) of inputs of one length, from the plain model in float64."""
    exact = deepcopy(model).double()
    strands = [inputs, [reverse_complement(bases) for bases in inputs]] if rc else [inputs]
    with torch.inference_mode():
        logits = [
            exact.plain(
                torch.from_numpy(np.stack([Tokenizer().encode_array(read) for read in reads])).long()
            ).head_logits.numpy()
            for reads in strands
        ]
    return np.mean(logits, axis=0) @ target_contrasts(prediction_head(model)).T


@pytest.mark.parametrize(
    ("head", "target"),
    [
        (HeadConfig("multiclass", 3, ("x", "y", "z")), "y"),
        (HeadConfig("binary", 1), "0"),
        (HeadConfig("multilabel", 2, ("x", "y"), pool="max"), "x"),
        (UNITS, "b"),
    ],
)
@pytest.mark.parametrize("rc", [False, True])
def test_mutagenesis_equals_every_substitution_by_itself(head: HeadConfig, target: str, rc: bool) -> None:
    model = with_head(head)
    bases = random_dna(9, 3) + "N" + random_dna(4, 4)
    (answer,) = attributed(model, record(bases), rc=rc, target=target)
    value = choose_target(head, target)
    changed = [f"{bases[:at]}{base}{bases[at + 1 :]}".encode() for base in "ACGT" for at in range(len(bases))]
    expected = plain_scores(model, changed, rc=rc)[:, value].reshape(4, len(bases))
    expected -= expected.mean(axis=0)
    expected[:, 9] = 0
    np.testing.assert_allclose(answer.values_4L, expected, atol=2e-5)
    assert np.abs(expected).max() > 0.01
    assert answer.score == pytest.approx(plain_scores(model, [bases.encode()], rc=rc)[0, value], abs=1e-5)
    assert np.isnan(answer.observed()).nonzero()[0].tolist() == [9]
    assert answer.observed()[0] == answer.values_4L["ACGT".index(bases[0]), 0]


def finite_differences(model: HyenaDNA, bases: bytes, value: int, step: float = 1e-4) -> np.ndarray:
    """The slope of a score by each letter of the one-hot input (4, L), of the plain model in float64."""
    exact = deepcopy(model).double()
    ids = torch.from_numpy(Tokenizer().encode_array(bases)).long()[None]
    letters = exact.backbone.embeddings.word_embeddings.weight[Tokenizer().encode_array(b"ACGT").tolist()]
    contrast = target_contrasts(prediction_head(model))[value]
    moved = []
    for row, position in np.ndindex(4, len(bases)):
        for sign in (1, -1):
            x = exact.backbone.embed(ids)[0].detach().clone()
            x[position] += sign * step * letters[row].detach()
            moved.append(x)
    with torch.inference_mode():
        ends = exact.head(exact.backbone(torch.stack(moved))[0]).numpy() @ contrast
    return (ends[0::2] - ends[1::2]).reshape(4, len(bases)) / (2 * step)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("rc", [False, True])
def test_gradients_equal_finite_differences(pool: str, rc: bool) -> None:
    head = HeadConfig("multiclass", 3, pool=pool)
    model = with_head(head)
    bases = random_dna(8, 5) + "N" + random_dna(5, 6)
    short = record("GATTACA", name="short")
    answers = attributed(
        model, short, replace_status(short), record(bases), rc=rc, method="gradient", target="2"
    )
    assert [answer.record.status for answer in answers] == ["OK", EMPTY, "OK"]
    expected = finite_differences(model, bases.encode(), 2)
    if rc:
        expected = (
            expected + finite_differences(model, reverse_complement(bases.encode()), 2)[::-1, ::-1]
        ) / 2
    expected -= expected.mean(axis=0)
    expected[:, 8] = 0
    np.testing.assert_allclose(answers[2].values_4L, expected, atol=2e-5 * max(1, np.abs(expected).max()))
    assert answers[0].values_4L.shape == (4, 7)


def replace_status(of: SequenceRecord) -> SequenceRecord:
    return SequenceRecord(of.id, of.chrom, of.start, of.end, status=EMPTY)


@pytest.mark.parametrize("method", ["ism", "gradient"])
def test_a_strand_is_read_as_it_is_written(method: str) -> None:
    model = with_head(HeadConfig("regression", 1))
    bases = random_dna(12, 7)
    backwards = reverse_complement(bases.encode()).decode()
    forward, reverse = attributed(model, record(bases), record(backwards, "-"), stranded=True, method=method)
    np.testing.assert_allclose(forward.values_4L, reverse.values_4L[::-1, ::-1], atol=1e-6)
    both, mirrored = attributed(model, record(bases), record(backwards), rc=True, method=method)
    np.testing.assert_allclose(both.values_4L, mirrored.values_4L[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize("method", ["ism", "gradient"])
def test_a_soft_prompt_is_part_of_the_model(method: str) -> None:
    model = with_head(HeadConfig("regression", 1))
    before = attributed(model, record("GATTACAGA"), method=method)[0].values_4L
    add_soft_prompt(model, SoftPromptConfig(3), base="b" * 64)
    with torch.no_grad():
        model.backbone.prompt.vectors.add_(1)
    after = attributed(model, record("GATTACAGA"), method=method)[0].values_4L
    assert np.abs(before - after).max() > 1e-3


def test_targets_by_default() -> None:
    assert choose_target(HeadConfig("binary", 1), None) == 1
    assert choose_target(HeadConfig("regression", 1), None) == 0
    assert choose_target(HeadConfig("multiclass", 3), None) is None
    with pytest.raises(UsageError, match="name it with --target: a, b"):
        choose_target(UNITS, None)
    with pytest.raises(UsageError, match="no output 'c'"):
        choose_target(UNITS, "c")
    model = with_head(HeadConfig("multiclass", 3, ("x", "y", "z")))
    bases = random_dna(20, 8)
    (answer,) = attributed(model, record(bases), method="gradient")
    scores = plain_scores(model, [bases.encode()], rc=False)[0]
    assert answer.target == "xyz"[scores.argmax()]
    assert answer.score == pytest.approx(scores.max(), abs=1e-5)


def test_long_records_and_models_that_have_no_answer() -> None:
    (answer,) = attributed(with_head(HeadConfig("regression", 1)), record("A" * 12), max_length=11)
    assert (answer.record.status, answer.n_bases) == ("TOO_LONG", 0)
    beyond = record(random_dna(70, 9))  # more than the model reads at once
    by_method = {
        method: attributed(with_head(HeadConfig("regression", 1)), beyond, method=method)[0]
        for method in ("ism", "gradient")
    }
    assert by_method["gradient"].record.status == "TOO_LONG"
    assert by_method["ism"].values_4L.any(axis=0).all()
    for model in (tiny_model(), with_head(HeadConfig("binary", 2, level="nucleotide"))):
        reading = prediction_options(HeadConfig("binary", 2), rc=False)
        with pytest.raises(UserError, match=r"has no head|predicts every base"):
            list(attribute(model, [record("ACGT")], AttributionOptions(), reading))
