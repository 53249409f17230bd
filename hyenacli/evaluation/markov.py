"""Markov models of DNA: a yardstick of language models, and an expert on which genome a sequence is of.

N windows or sequences, W bases of a window, K classes, O orders.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Floats, Ints
from hyenacli.evaluation.words import DIGITS, reverse_complements, word_codes
from hyenacli.readers.genome import Tokens
from hyenadna.tokenizer import A, N

MAX_ORDER = 8
ORDERS = (6, 8, 10)
"""Orders of the models that tell genomes apart. Even ones: no word of an odd number of bases is its own
reverse complement."""
# Each order borrows this many observations from the order below, so that unseen contexts have a distribution.
PSEUDO_COUNT = 4.0
CHUNK = 1 << 22


class MarkovModels:
    """Markov models of order 0 to `order` fitted to the same bases.

    p_k(b | context) = (count + a p_{k-1}(b | shorter context)) / (total + a) with a = PSEUDO_COUNT, p_{-1}
    uniform. Counts of the lower orders are sums of the (order + 1)-mer counts.

    Args:
        stretches: token ids (length,) of each stretch; windows of bases never cross from one to the next,
            nor an N.
        chunk: bases counted at once.
        order: the highest.
        both_strands: count the reverse complement of the stretches as well.
    """

    def __init__(
        self,
        stretches: Iterable[Tokens],
        chunk: int = CHUNK,
        *,
        order: int = MAX_ORDER,
        both_strands: bool = False,
    ):
        self._order = order
        counts = count_words(stretches, order + 1, chunk, both_strands=both_strands)
        self._log_p = _log_probabilities(counts, order)

    def of_both_strands(self, order: int) -> Floats:
        """Return log p of the last base of each (order + 1)-mer, mean of the word and its reverse complement.

        Summed over the words of a sequence, it is the mean log-likelihood of both strands.
        """
        log_p = self._log_p[order]
        return (log_p + reverse_complements(log_p, order + 1)) / 2

    def cross_entropy(self, windows_NW: Tokens) -> list[float]:
        """Compute mean nats per base under each order, over the bases a language model predicts too.

        Those are A, C, G, T at positions 1.. of each window. As for the language model, only bases of the
        same window are context: early positions use a lower order.
        """
        totals, bases = np.zeros(self._order + 1), 0
        for window in windows_NW:
            codes, run = _contexts(window, self._order)
            at = np.flatnonzero(run[1:] > 0) + 1
            bases += len(at)
            for order, total in enumerate(self._nats(codes, run, at)):
                totals[order] += total
        return [float(total / max(1, bases)) for total in totals]

    def draw(self, order: int, lengths: Sequence[int], rng: np.random.Generator) -> list[Tokens]:
        """Draw sequences of these lengths from the model of an order; the first bases are of lower orders."""
        longest = max(lengths, default=0)
        base_LN = np.empty((longest, len(lengths)), np.int64)
        context_N = np.zeros(len(lengths), np.int64)
        for i, base_N in enumerate(base_LN):
            before = min(i, order)
            p_N4 = np.exp(self._log_p[before].reshape(-1, 4)[context_N % 4**before])
            edges_N4 = np.cumsum(p_N4, axis=1)
            drawn_N1 = rng.random(len(lengths))[:, None] * edges_N4[:, 3:]
            base_N[:] = (edges_N4 <= drawn_N1).sum(axis=1)
            context_N = (4 * context_N + base_N) % 4**order
        return [(base_LN[:n, i] + A).astype(np.uint8) for i, n in enumerate(lengths)]

    def _nats(self, codes: Ints, run: Ints, at: npt.NDArray[np.intp]) -> Floats:
        """Sum -log p over positions `at`, for each order (order + 1,)."""
        available = np.minimum(run[at] - 1, self._order)
        surprise = np.empty((self._order + 1, len(at)))
        for order, log_p in enumerate(self._log_p):
            surprise[order] = -log_p[codes[at] % 4 ** (order + 1)]
        used = np.minimum(np.arange(self._order + 1)[:, None], available[None, :])
        return np.asarray(np.take_along_axis(surprise, used, axis=0).sum(axis=1))


def count_words(
    stretches: Iterable[Tokens], length: int, chunk: int = CHUNK, *, both_strands: bool = False
) -> Floats:
    """Count the words without N of `length` bases (4**length,), the first base as the highest digit."""
    counts = np.zeros(4**length)
    for tokens in _blocks(stretches, length - 1, chunk):
        codes, _ = word_codes(tokens - np.uint8(A), length, np.int32)
        counts += np.bincount(codes, minlength=len(counts))
    return counts + reverse_complements(counts, length) if both_strands else counts


def _blocks(stretches: Iterable[Tokens], order: int, chunk: int) -> Iterator[Tokens]:
    """Cut long stretches into pieces, and join short ones with an N between: a count has its fixed cost."""
    pieces, size, gap = [], 0, np.array([N], np.uint8)
    for stretch in stretches:
        for start in range(0, len(stretch), chunk):
            pieces += [stretch[start : start + chunk + order], gap]
            size += len(pieces[-2])
            if size >= chunk:
                yield np.concatenate(pieces)
                pieces, size = [], 0
    if pieces:
        yield np.concatenate(pieces)


def _contexts(tokens: Tokens, order: int) -> tuple[Ints, Ints]:
    """Return, per position, the last order + 1 bases as a base-4 number, and the run of bases.

    Digits of the number beyond the run mean nothing.
    """
    base = tokens.astype(np.int64) - A
    real = (base >= 0) & (base < 4)
    base[~real] = 0
    code = np.zeros_like(base)
    for back in range(min(order + 1, len(base))):
        code[back:] += base[: len(base) - back] * 4**back
    position = np.arange(1, len(base) + 1)
    run = position - np.maximum.accumulate(np.where(real, 0, position))
    return code, run


def _log_probabilities(counts: Floats, highest: int) -> list[Floats]:
    """Return log p of every (order + 1)-mer's last base given the ones before it, for each order."""
    by_order = []
    previous = np.full(4, 0.25)
    for order in range(highest + 1):
        # The oldest base is the highest digit: summing over the leading axis forgets it.
        counts_C4 = counts.reshape(-1, 4**order, 4).sum(axis=0)
        prior_C4 = np.resize(previous.reshape(-1, 4), counts_C4.shape)
        p_C4 = (counts_C4 + PSEUDO_COUNT * prior_C4) / (counts_C4.sum(axis=1, keepdims=True) + PSEUDO_COUNT)
        previous = p_C4.ravel()
        by_order.append(np.log(previous))
    return by_order


@dataclass(frozen=True)
class MarkovClassifier:
    """Log-likelihoods of a sequence under Markov models of several genomes.

    Attributes:
        halves: of each order, log p (WORDS / 2, K) in float16 of the words whose middle base is A or C, mean
            of both strands: the others are their reverse complements.
        window: bases that log-likelihoods are scaled to. What leans towards a genome grows with length, and
            offsets fitted to windows of one length would be wrong for others.
    """

    halves: Mapping[int, npt.NDArray[np.float16]]
    window: int

    @property
    def n_classes(self) -> int:
        """The number of genomes, K."""
        return len(next(iter(self.halves.values()))[0])

    @property
    def orders(self) -> tuple[int, ...]:
        """The orders, ascending."""
        return tuple(self.halves)

    @cached_property
    def _tables(self) -> list[npt.NDArray[np.float16]]:
        """Log p (WORDS, K) of all words, of each order."""
        tables = []
        for order, half in self.halves.items():
            beside = 4 ** (order // 2)
            table = np.zeros((beside, 4, beside, self.n_classes), np.float16)
            table[:, :2] = half.reshape(beside, 2, beside, -1)
            table = table.reshape(4 ** (order + 1), -1)
            tables.append(table + reverse_complements(table, order + 1))
        return tables

    def outputs(self, sequences: Sequence[bytes]) -> Floats:
        """Compute log-likelihoods (O, N, K) per `window` bases, mean of both strands.

        The first `order` bases of a sequence are context only.

        Args:
            sequences: normalised bases; words with an N do not count.
        """
        log_p_ONK = np.zeros((len(self.halves), len(sequences), self.n_classes))
        for i, bases in enumerate(sequences):
            digit_L = DIGITS[np.frombuffer(bases, np.uint8)]
            for o, (order, table) in enumerate(zip(self.halves, self._tables, strict=True)):
                codes, _ = word_codes(digit_L, order + 1, np.int32)
                log_p_K = table[codes].sum(axis=0, dtype=np.float64)
                log_p_ONK[o, i] = log_p_K * self.window / max(1, len(codes))
        return log_p_ONK


def fit_markov(
    genomes: Iterable[Iterable[Tokens]], orders: Sequence[int] = ORDERS, window: int = 1024
) -> MarkovClassifier:
    """Fit Markov models to both strands of each genome.

    Args:
        genomes: stretches of token ids of each class.
        orders: even ones, ascending.
        window: bases that log-likelihoods are scaled to.
    """
    halves: dict[int, list[npt.NDArray[np.float16]]] = {order: [] for order in orders}
    for stretches in genomes:
        models = MarkovModels(stretches, order=orders[-1], both_strands=True)
        for order, parts in halves.items():
            beside = 4 ** (order // 2)
            table = models.of_both_strands(order).astype(np.float16)
            parts.append(table.reshape(beside, 4, beside)[:, :2].ravel())
    return MarkovClassifier({order: np.stack(parts, axis=1) for order, parts in halves.items()}, window)


def informative_orders(n_bases: int) -> tuple[int, ...]:
    """Return the orders that so many bases inform: those with no more contexts than bases, or the lowest.

    >>> informative_orders(100), informative_orders(5_000_000)
    ((6,), (6, 8, 10))
    """
    return tuple(order for order in ORDERS if 4**order <= n_bases) or ORDERS[:1]
