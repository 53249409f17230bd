"""Markov yardsticks against a dictionary of counts written straight from the definition."""

import math
from collections import Counter

import numpy as np
import pytest

from hyenacli.evaluation.markov import MAX_ORDER, PSEUDO_COUNT, MarkovModels, fit_markov
from hyenacli.genome.dna import reverse_complement
from hyenadna import Tokenizer

TOKENS = Tokenizer()


def probability(counts: Counter[str], context: str, base: str) -> float:
    lower = probability(counts, context[1:], base) if context else 0.25
    total = sum(counts[context + b] for b in "ACGT")
    return (counts[context + base] + PSEUDO_COUNT * lower) / (total + PSEUDO_COUNT)


def by_definition(train: str, windows: list[str], order: int) -> float:
    counts: Counter[str] = Counter()
    for i in range(MAX_ORDER, len(train)):
        word = train[i - MAX_ORDER : i + 1]
        if "N" not in word:
            for k in range(MAX_ORDER + 1):
                counts[word[MAX_ORDER - k :]] += 1
    nats = []
    for window in windows:
        for i in range(1, len(window)):
            if window[i] != "N":
                context = window[max(0, i - order) : i].rpartition("N")[2]
                nats.append(-math.log(probability(counts, context, window[i])))
    return sum(nats) / len(nats)


@pytest.fixture(scope="module")
def sequences() -> tuple[str, list[str]]:
    rng = np.random.default_rng(3)
    text = "".join(rng.choice(list("ACGTN"), 3_000, p=[0.4, 0.3, 0.1, 0.18, 0.02]))
    return text, [text[i : i + 40] for i in (5, 77)] + ["".join(rng.choice(list("ACGTN"), 40))]


@pytest.mark.parametrize("chunk", [1 << 22, 100])
def test_loss_of_every_order(sequences: tuple[str, list[str]], chunk: int) -> None:
    train, windows = sequences
    models = MarkovModels([TOKENS.encode_array(train)], chunk)
    losses = models.cross_entropy(np.stack([TOKENS.encode_array(w) for w in windows]))
    assert losses == pytest.approx(
        [by_definition(train, windows, k) for k in range(MAX_ORDER + 1)], rel=1e-12
    )


def test_a_periodic_sequence_is_learnt_by_the_order_that_sees_the_period() -> None:
    train = TOKENS.encode_array("ACGGT" * 5_000)
    losses = MarkovModels([train]).cross_entropy(train[None, :500])
    assert losses[0] > 1.3
    assert losses[1] > 0.2
    assert losses[2] < 0.01


def test_nothing_seen_is_uniform() -> None:
    losses = MarkovModels([]).cross_entropy(TOKENS.encode_array("ACGTACGT")[None])
    assert losses == pytest.approx([math.log(4)] * (MAX_ORDER + 1))


def test_log_likelihoods_are_of_both_strands_of_short_and_long_stretches(
    sequences: tuple[str, list[str]],
) -> None:
    train, windows = sequences
    both = train + "N" + reverse_complement(train.encode()).decode()
    stretches = [TOKENS.encode_array(part) for part in train.split("N")]
    model = fit_markov([stretches, [TOKENS.encode_array("ACGT" * 50)]], (2, 4), 30)
    log_p_ONK = model.outputs([window.encode() for window in windows])
    for o, order in enumerate((2, 4)):
        counts: Counter[str] = Counter()
        for i in range(4, len(both)):
            word = both[i - 4 : i + 1]
            if "N" not in word:
                counts.update(word[4 - k :] for k in range(5))
        for n, window in enumerate(windows):
            total, count = 0.0, 0
            for strand in (window, reverse_complement(window.encode()).decode()):
                words = [strand[i - order : i + 1] for i in range(order, len(strand))]
                words = [word for word in words if "N" not in word]
                total += sum(math.log(probability(counts, word[:-1], word[-1])) for word in words)
                count += len(words)
            assert log_p_ONK[o, n, 0] == pytest.approx(30 * total / count, rel=1e-3)
    # the other strand is the same to a rounding of the sum
    swapped = model.outputs([reverse_complement(window.encode()) for window in windows])
    np.testing.assert_allclose(swapped, log_p_ONK, rtol=1e-12)
