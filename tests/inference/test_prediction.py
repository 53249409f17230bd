"""A head on stretches equals the model called directly, however its input is cut, batched and ordered."""

import random
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.embedding import embed
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.prediction import (
    Predicted,
    choose_track,
    head_values,
    predict,
    prediction_columns,
    prediction_options,
    prediction_rows,
    value_names,
)
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaDNA, SoftPromptConfig, Tokenizer, add_soft_prompt
from hyenadna.config import HeadConfig
from hyenadna.heads import pool
from tests.toys import predict_with, tiny_model

POOLS = ("mean", "last", "max")
UNITS = HeadConfig("regression", 2, ("a", "b"), center=(3.0, -1.0), scale=(2.0, 0.5))


def with_head(head: HeadConfig, context: int = 64) -> HyenaDNA:
    """A small model whose head has weights large enough to matter."""
    model = tiny_model(context=context)
    model.set_head(head, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.head.output_transform.weight.mul_(20)
    return model


def stretch(bases: bytes, strand: str = ".", name: str = "r") -> SequenceRecord:
    return SequenceRecord(name, "chr1", 100, 100 + len(bases), strand, bases=bases)


def dna(length: int, seed: int = 0) -> bytes:
    return bytes(random.Random(seed).choices(b"ACGTN", k=length))


def call(model: HyenaDNA, bases: bytes) -> np.ndarray:
    """The model's own answer to one short sequence."""
    ids = torch.from_numpy(Tokenizer().encode_array(bases)).long()[None]
    with torch.inference_mode():
        return model(ids).head_logits[0].double().numpy()


def logits(model: HyenaDNA, one: SequenceRecord, **how: object) -> np.ndarray:
    (predicted,) = predict_with(model, [one], **({"rc": False} | how))
    assert predicted.record is one
    assert predicted.logits.dtype == np.float64
    return predicted.logits


@pytest.mark.parametrize(("how", "rc"), list(product(POOLS, [False, True])))
def test_sequences_are_what_the_model_says(how: str, rc: bool) -> None:
    model = with_head(HeadConfig("regression", 2, pool=how, center=(3.0, -1.0), scale=(2.0, 0.5)))
    for length in (1, 7, 64):
        bases = dna(length, length)
        wanted = call(model, bases)
        if rc:
            wanted = (wanted + call(model, reverse_complement(bases))) / 2
        got = logits(model, stretch(bases), rc=rc)
        assert got.shape == (2,)
        np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("rc", [False, True])
def test_bases_are_what_the_model_says_in_their_order(rc: bool) -> None:
    model = with_head(HeadConfig("multiclass", 3, level="nucleotide"))
    for length in (1, 64):
        bases = dna(length, length)
        wanted = call(model, bases)
        if rc:
            wanted = (wanted + call(model, reverse_complement(bases))[::-1]) / 2
        got = logits(model, stretch(bases), rc=rc)
        assert got.shape == (length, 3)
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_the_strand_is_read_where_the_recipe_says_so() -> None:
    bases = dna(30)
    for level in ("sequence", "nucleotide"):
        model = with_head(HeadConfig("binary", 2, pool="last", level=level))
        np.testing.assert_allclose(logits(model, stretch(bases, "-")), call(model, bases), atol=1e-4)
        recipe = prediction_options(model.config.head, rc=False, stranded=True)
        (answer,) = predict(model, [stretch(bases, "-")], recipe)
        backwards = call(model, reverse_complement(bases))
        wanted = backwards[::-1] if level == "nucleotide" else backwards
        np.testing.assert_allclose(answer.logits, wanted, atol=1e-4)


def long_answer(model: HyenaDNA, bases: bytes, width: int, stride: int) -> np.ndarray:
    """The rule for long sequences, base by base: states of the first window that holds the base, one head."""
    last = max(0, len(bases) - width)
    starts = [min(start, last) for start in range(0, len(bases), stride)]
    states = []
    for place in range(len(bases)):
        start = next(one for one in starts if one <= place < one + width)
        ids = torch.from_numpy(Tokenizer().encode_array(bases[start : start + width])).long()[None]
        with torch.inference_mode():
            states.append(model.hidden(ids)[0, place - start])
    head = model.config.head
    hidden_1LD = torch.stack(states)[None]
    with torch.inference_mode():
        pooled = hidden_1LD if head.level == "nucleotide" else pool(hidden_1LD, head.pool)
        return model.head.project(pooled)[0].numpy()


@pytest.mark.parametrize(
    "head",
    [*(HeadConfig("binary", 2, pool=how) for how in POOLS), HeadConfig("binary", 1, level="nucleotide")],
    ids=lambda head: f"{head.level}-{head.pool}",
)
@pytest.mark.parametrize(("window", "stride"), [(None, None), (20, None), (20, 7)])
def test_long_sequences_follow_the_rule(head: HeadConfig, window: int | None, stride: int | None) -> None:
    model, bases = with_head(head, context=32), dna(75)
    width = window or 32
    wanted = long_answer(model, bases, width, stride or width)
    got = logits(model, stretch(bases), window=window, stride=stride)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    both = (wanted, long_answer(model, reverse_complement(bases), width, stride or width))
    flipped = both[1][::-1] if head.level == "nucleotide" else both[1]
    got = logits(model, stretch(bases), window=window, stride=stride, rc=True)
    np.testing.assert_allclose(got, (both[0] + flipped) / 2, atol=1e-4)


MODELS = [with_head(UNITS), with_head(HeadConfig("multilabel", 3, level="nucleotide"))]


@settings(max_examples=20)
@given(
    st.lists(st.text("ACGTN", min_size=1, max_size=90), min_size=1, max_size=8),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.sampled_from(MODELS),
    st.randoms(use_true_random=False),
)
def test_batches_and_order_change_nothing(
    sequences: list[str], batch_size: int | None, rc: bool, model: HyenaDNA, rng: random.Random
) -> None:
    records = [stretch(text.encode(), name=str(i)) for i, text in enumerate(sequences)]
    rng.shuffle(records)
    answers = list(predict_with(model, records, rc=rc, batch_size=batch_size))
    assert [answer.record for answer in answers] == records
    for one, answer in zip(records, answers, strict=True):
        np.testing.assert_allclose(answer.logits, logits(model, one, rc=rc), atol=1e-4)


def test_records_that_cannot_be_predicted_keep_their_place() -> None:
    lost = SequenceRecord("lost", "chrU", 5, 9, status="NO_CONTIG")
    empty = SequenceRecord("empty", "s", 0, 0, status="EMPTY")
    good = stretch(dna(20))
    for model, n in zip(MODELS, (20, 1), strict=True):
        answers = list(predict_with(model, [lost, good, empty], rc=True))
        assert answers[0] == Predicted(lost, 0, None)
        assert answers[2] == Predicted(empty, 0, None)
        assert (answers[1].record, answers[1].n_bases) == (good, n)
    assert list(predict_with(model, [], rc=False)) == []


def test_a_soft_prompt_leaves_less_room_and_is_read() -> None:
    model = with_head(HeadConfig("binary", 2), context=32)
    plain, bases = logits(model, stretch(dna(20))), dna(70)
    add_soft_prompt(model, SoftPromptConfig(tokens=10), base="b")
    model.eval()
    assert model.longest_input == 24
    assert np.abs(logits(model, stretch(dna(20))) - plain).max() > 1e-4
    np.testing.assert_allclose(logits(model, stretch(bases)), long_answer(model, bases, 24, 24), atol=1e-4)
    (embedded,) = embed(model, [stretch(bases)], EmbeddingOptions())
    assert embedded.n_bases == 70
    with pytest.raises(UsageError, match="the model takes at most 24 bases, not 25"):
        predict_with(model, [], rc=False, window=25)


def test_a_model_without_a_head_is_told_before_anything_is_read() -> None:
    with pytest.raises(
        UserError, match="the model has no head to predict with; fine-tune one with `hyena fi"
    ):
        predict_with(tiny_model(), [], rc=False)


def names(head: HeadConfig) -> list[str]:
    return [column.name for column in prediction_columns(head)][7:]


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (HeadConfig("binary", 2, ("a", "b")), ["prediction", "p_a", "p_b"]),
        (HeadConfig("binary", 1), ["prediction", "p_0", "p_1"]),
        (HeadConfig("binary", 1, ("hit",)), ["prediction", "p_not_hit", "p_hit"]),
        (HeadConfig("multiclass", 3), ["prediction", "p_0", "p_1", "p_2"]),
        (HeadConfig("multiclass", 3, ("a", "a", "b")), ["prediction", "p_0", "p_1", "p_2"]),
        (HeadConfig("multilabel", 2, ("a", "b")), ["p_a", "p_b"]),
        (HeadConfig("regression", 1), ["prediction"]),
        (HeadConfig("regression", 1, ("label",)), ["prediction"]),
        (HeadConfig("regression", 1, ("expression",)), ["prediction"]),
        (HeadConfig("regression", 2, ("start", "dip")), ["prediction_start", "prediction_dip"]),
        (HeadConfig("regression", 2), ["prediction_0", "prediction_1"]),
    ],
)
def test_columns_are_called_as_the_head_calls_its_outputs(head: HeadConfig, wanted: list[str]) -> None:
    assert names(head) == wanted
    outputs = np.linspace(-1, 1, head.n_outputs)
    rows = prediction_rows(Predicted(stretch(b"AC"), 2, outputs), head)
    assert list(rows) == ["id", "chrom", "start", "end", "strand", "n_bases", "status", *wanted]
    shown = [rows[name][0] for name in wanted if not isinstance(rows[name][0], str)]
    np.testing.assert_allclose(shown, head_values(outputs, head)[0])
    assert len(shown) == len(value_names(head))


def test_values_are_probabilities_and_the_likeliest_class_is_named() -> None:
    head = HeadConfig("binary", 2, ("no", "yes"), level="nucleotide")
    outputs = np.array([[0.0, np.log(3)], [np.log(4), 0.0]])
    rows = prediction_rows(Predicted(stretch(b"AC"), 1, outputs), head)
    assert rows["prediction"] == ["yes", "no"]
    np.testing.assert_allclose(rows["p_yes"], [0.75, 0.2])
    assert (rows["start"].tolist(), rows["end"].tolist()) == ([100, 101], [101, 102])
    (lost,) = prediction_rows(Predicted(stretch(b""), 0, None), head)["prediction"]
    assert lost == ""


def test_which_output_a_track_shows() -> None:
    two = HeadConfig("binary", 2, ("no", "yes"), level="nucleotide")
    three = HeadConfig("multiclass", 3, ("a", "b", "c"), level="nucleotide")
    one = HeadConfig("regression", 1, level="nucleotide")
    assert [choose_track(two, None), choose_track(two, "no"), choose_track(three, "c")] == [1, 0, 2]
    assert [choose_track(one, None), choose_track(HeadConfig("binary", 1, level="nucleotide"), None)] == [
        0,
        1,
    ]
    with pytest.raises(UsageError, match="one of the model's 3 outputs; name it with --track: a, b, c"):
        choose_track(three, None)
    with pytest.raises(UsageError, match=r"--track: the model has no output 'yse'; did you mean 'yes'\?"):
        choose_track(two, "yse")
    with pytest.raises(UsageError, match="the model predicts sequences; write a table"):
        choose_track(HeadConfig("binary", 2), None)
