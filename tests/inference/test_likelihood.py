"""Likelihood of records against the definition, base by base."""

import math

import pytest
import torch

from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.likelihood import score_sequences
from hyenacli.readers.records import SequenceRecord
from hyenadna import Tokenizer
from hyenadna.tokenizer import A, T
from tests.builders import random_dna
from tests.toys import tiny_model

WINDOW = 8


def log_p(bases: bytes) -> list[float]:
    """log p of every base but the first, renormalised over A, C, G and T; NaN for N."""
    ids_L = Tokenizer().encode(bases)
    logits_LV = tiny_model().plain(ids_L[None]).logits[0, :-1, A : T + 1].double()
    table_LV = logits_LV.log_softmax(-1).detach()
    return [
        float(row[token - A]) if A <= token <= T else math.nan
        for row, token in zip(table_LV, ids_L[1:], strict=True)
    ]


def brute(bases: bytes, first: int, window: int, stride: int) -> list[float]:
    """log p of the bases from `first` on, each from the first window that predicts it."""
    by_base: dict[int, float] = {}
    last = max(0, len(bases) - 1 - window)
    starts = [*range(0, last, stride), last]
    for start in starts:
        for i, value in enumerate(log_p(bases[start : start + window + 1]), start + 1):
            by_base.setdefault(i, value)
    return [value for i, value in by_base.items() if i >= first and not math.isnan(value)]


def record(bases: bytes, left: int = 0, right: int = 0, strand: str = ".") -> SequenceRecord:
    return SequenceRecord("x", "c", 5, 5 + len(bases) - left - right, strand, bases, left)


@pytest.mark.parametrize("stride", [8, 3])
def test_every_base_is_predicted_once_on_each_strand(stride: int) -> None:
    records = [
        record(random_dna(length, length, "ACGTN").encode(), left, right)
        for length, left, right in ((4, 0, 0), (9, 0, 0), (10, 0, 0), (30, 0, 0), (31, 5, 0), (40, 11, 7))
    ]
    options = EmbeddingOptions(rc="mean", window=WINDOW, stride=stride)
    for batch_size in (1, 7, None):
        scored = list(score_sequences(tiny_model(), records, options, batch_size=batch_size))
        for one, answer in zip(records, scored, strict=True):
            right = len(one.bases) - one.left - len(one)
            forward = brute(one.bases[: len(one.bases) - right], one.left, WINDOW, stride)
            reverse = brute(reverse_complement(one.bases[one.left :]), right, WINDOW, stride)
            assert answer.n_bases == max(len(forward), len(reverse))
            assert answer.log_likelihood == pytest.approx((sum(forward) + sum(reverse)) / 2, abs=1e-4)
            bits = -(sum(forward) + sum(reverse)) / math.log(2) / len(forward + reverse)
            assert answer.bits_per_base == pytest.approx(bits, abs=1e-5)


def test_one_strand_is_the_one_of_the_region() -> None:
    bases = random_dna(20, 1).encode()
    for strand, read in (("+", bases), ("-", reverse_complement(bases))):
        options = EmbeddingOptions(stranded=True)
        (answer,) = score_sequences(tiny_model(), [record(bases, strand=strand)], options)
        assert answer.log_likelihood == pytest.approx(sum(log_p(read)), abs=1e-4)


def test_what_cannot_be_predicted_has_a_status() -> None:
    records = [
        record(b"A"),
        record(b"NNNN"),
        SequenceRecord("gone", "c", 0, 0, status="NO_CONTIG"),
        record(b"AC"),
    ]
    scored = list(score_sequences(tiny_model(), records, EmbeddingOptions(rc="mean")))
    assert [answer.record.status for answer in scored] == ["TOO_SHORT", "ALL_N", "NO_CONTIG", "OK"]
    assert [answer.n_bases for answer in scored] == [0, 0, 0, 1]
    assert [math.isnan(answer.bits_per_base) for answer in scored] == [True, True, True, False]


def test_both_strands_of_a_sequence_are_equally_likely() -> None:
    bases = random_dna(50, 3).encode()
    options = EmbeddingOptions(rc="mean")
    pair = [record(bases), record(reverse_complement(bases))]
    one, other = score_sequences(tiny_model(), pair, options)
    assert one.bits_per_base == pytest.approx(other.bits_per_base, abs=1e-6)


def test_a_model_without_preferences_gives_two_bits() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_weight.zero_()
    (answer,) = score_sequences(model, [record(b"ACGTACGTNNACC")], EmbeddingOptions())
    assert answer.bits_per_base == pytest.approx(2)
