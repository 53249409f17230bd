"""Attributions equal those of the plain model: each substitution by itself, and finite differences."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from hyenacli.errors import UsageError, UserError
from hyenacli.evaluation.seqlets import shuffle_dinucleotides
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.attribution import Attribution, AttributionOptions, attribute
from hyenacli.inference.attribution_targets import choose_score, choose_target, target_contrasts
from hyenacli.inference.prediction import prediction_head, prediction_options
from hyenacli.readers.records import SequenceRecord
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
    target = options.pop("target", None)
    head = model.config.head or HeadConfig("binary", 2)
    reading = prediction_options(head, rc=rc, stranded=stranded)
    score = choose_score(model, target, reading, batch_size=5)
    return list(attribute(score, records, AttributionOptions(**options), batch_size=5))


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
    assert [answer.record.status for answer in answers] == ["OK", "EMPTY", "OK"]
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
    return SequenceRecord(of.id, of.chrom, of.start, of.end, status="EMPTY")


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
    with pytest.raises(UserError, match="predicts every base"):
        attributed(with_head(HeadConfig("binary", 2, level="nucleotide")), record("ACGT"))
    with pytest.raises(UsageError, match="no head, and so no output 'x'"):
        attributed(tiny_model(), record("ACGT"), target="x")


def likelihoods(model: HyenaDNA, inputs: Sequence[bytes], first: int, end: int) -> np.ndarray:
    """The sum of log p of bases[first:end], mean of both strands, from the plain model in float64."""
    exact, totals = deepcopy(model).double(), np.zeros(len(inputs))
    for bases, start in (
        (inputs, first),
        ([reverse_complement(read) for read in inputs], len(inputs[0]) - end),
    ):
        ids_BL = torch.from_numpy(np.stack([Tokenizer().encode_array(read) for read in bases])).long()
        with torch.inference_mode():
            log_p = exact.plain(ids_BL).logits[:, :-1, 7:11].log_softmax(-1).numpy()
        for row, read in enumerate(bases):
            for at in range(max(1, start), start + end - first):
                totals[row] += 0 if read[at : at + 1] == b"N" else log_p[row, at - 1, b"ACGT".index(read[at])]
    return totals / 2


@pytest.mark.parametrize(("left", "right"), [(6, 9), (0, 0)])
def test_mutagenesis_of_a_likelihood_equals_every_substitution_by_itself(left: int, right: int) -> None:
    model, length = tiny_model(), 14
    bases = random_dna(40, 11).encode()
    bases = bases[: left + 4] + b"N" + bases[left + 5 : left + length + right]
    flanked = SequenceRecord("r", "chr1", 10, 10 + length, bases=bases, left=left)
    (answer,) = attributed(model, flanked, rc=True)
    changed = [
        bases[: left + at] + base + bases[left + at + 1 :]
        for base in (b"A", b"C", b"G", b"T")
        for at in range(length)
    ]
    expected = likelihoods(model, changed, left, left + length).reshape(4, length)
    expected -= expected.mean(axis=0)
    expected[:, 4] = 0
    np.testing.assert_allclose(answer.values_4L, expected, atol=2e-5)
    assert np.abs(expected).max() > 0.1
    assert answer.target == "likelihood"
    assert answer.score == pytest.approx(likelihoods(model, [bases], left, left + length)[0], abs=1e-5)
    # far flanks do not fit into the model and change nothing
    beyond = SequenceRecord("r", "chr1", 10, 10 + length, bases=b"C" * 100 + bases, left=left + 100)
    room = attributed(model, beyond, rc=True)[0].record
    assert (room.left, len(room)) == (64 - length, length)


@pytest.mark.parametrize("head", [None, HeadConfig("multiclass", 3), HeadConfig("binary", 2, pool="last")])
@pytest.mark.parametrize("rc", [False, True])
def test_integrated_gradients_sum_to_what_the_score_differs_by(head: HeadConfig | None, rc: bool) -> None:
    model = tiny_model() if head is None else with_head(head)
    bases = (random_dna(12, 12) + "N" + random_dna(9, 13)).encode()
    flanked = SequenceRecord("r", "chr1", 5, 5 + len(bases), bases=b"GAT" + bases + b"TACA", left=3)
    target = None if head is None else "1"
    (answer,) = attributed(model, flanked, rc=rc, method="integrated", references=4, target=target)
    shuffled = [
        replace(flanked, bases=b"GAT" + shuffle_dinucleotides(bases, 0, i) + b"TACA") for i in range(4)
    ]
    others = attributed(model, *shuffled, rc=rc, method="gradient", target=target)
    assert len({other.score for other in others}) > 1
    difference = answer.score - np.mean([other.score for other in others])
    assert np.nansum(answer.observed()) == pytest.approx(difference, abs=5e-3)
    assert np.abs(answer.values_4L).max() > 0.05


def test_gradients_of_a_likelihood_are_those_of_its_path() -> None:
    """At the sequence itself the path of a reference that differs in one base begins with the gradient."""
    model, bases = tiny_model(), random_dna(18, 14).encode()
    (answer,) = attributed(model, record(bases.decode()), rc=True, method="gradient")
    exact = deepcopy(model).double()
    letters = exact.backbone.embeddings.word_embeddings.weight[7:11]
    weights = torch.from_numpy(
        np.equal(np.frombuffer(bases, np.uint8)[:, None], np.frombuffer(b"ACGT", np.uint8))
    )
    slopes = []
    for turned in (weights.double(), weights.double().flip(0, 1)):
        bases_L4 = turned.clone().requires_grad_()
        log_p = exact.lm_logits(exact.backbone((bases_L4 @ letters)[None])[0])[0, :-1, 7:11].log_softmax(-1)
        slopes.append(torch.autograd.grad((log_p * bases_L4[1:]).sum(), bases_L4)[0].T.numpy())
    expected = (slopes[0] + slopes[1][::-1, ::-1]) / 2
    np.testing.assert_allclose(answer.values_4L, expected - expected.mean(axis=0), atol=1e-4)


def test_shuffled_sequences_tell_what_chance_gives() -> None:
    model = with_head(HeadConfig("regression", 1))
    bases = random_dna(30, 15)
    (answer,) = attributed(model, record(bases), null=2, method="gradient")
    shuffled = [record(shuffle_dinucleotides(bases.encode(), 0, i).decode()) for i in range(2)]
    for null, other in zip(answer.null, attributed(model, *shuffled, method="gradient"), strict=True):
        np.testing.assert_allclose(null, other.observed(), atol=1e-6)
