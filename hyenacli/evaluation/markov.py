"""Markov models of DNA.

N windows, W bases of a window, C contexts.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Floats, Ints
from hyenacli.readers.genome import Tokens
from hyenadna.tokenizer import A

MAX_ORDER = 8
# Each order borrows this many observations from the order below, so that unseen contexts have a distribution.
PSEUDO_COUNT = 4.0
CHUNK = 1 << 22


class MarkovModels:
    """Markov models of order 0 to `MAX_ORDER` fitted to the same bases.

    p_k(b | context) = (count + a p_{k-1}(b | shorter context)) / (total + a) with a = PSEUDO_COUNT, p_{-1}
    uniform. Floats of the lower orders are sums of the (MAX_ORDER + 1)-mer counts.

    Args:
        stretches: token ids (length,) of each stretch; windows of bases never cross from one to the next,
            nor an N.
        chunk: bases counted at once.
    """

    def __init__(self, stretches: Iterable[Tokens], chunk: int = CHUNK):
        counts = np.zeros(4 ** (MAX_ORDER + 1))
        for stretch in stretches:
            for start in range(0, len(stretch), chunk):
                codes, run = _contexts(stretch[start : start + chunk + MAX_ORDER])
                counts += np.bincount(codes[run > MAX_ORDER], minlength=len(counts))
        self._log_p = _log_probabilities(counts)

    def cross_entropy(self, windows_NW: Tokens) -> list[float]:
        """Compute mean nats per base under each order, over the bases a language model predicts too.

        Those are A, C, G, T at positions 1.. of each window. As for the language model, only bases of the
        same window are context: early positions use a lower order.
        """
        totals, bases = np.zeros(MAX_ORDER + 1), 0
        for window in windows_NW:
            codes, run = _contexts(window)
            at = np.flatnonzero(run[1:] > 0) + 1
            bases += len(at)
            for order, total in enumerate(self._nats(codes, run, at)):
                totals[order] += total
        return [float(total / max(1, bases)) for total in totals]

    def _nats(self, codes: Ints, run: Ints, at: npt.NDArray[np.intp]) -> Floats:
        """Sum -log p over positions `at`, for each order (MAX_ORDER + 1,)."""
        available = np.minimum(run[at] - 1, MAX_ORDER)
        surprise = np.empty((MAX_ORDER + 1, len(at)))
        for order, log_p in enumerate(self._log_p):
            surprise[order] = -log_p[codes[at] % 4 ** (order + 1)]
        used = np.minimum(np.arange(MAX_ORDER + 1)[:, None], available[None, :])
        return np.asarray(np.take_along_axis(surprise, used, axis=0).sum(axis=1))


def _contexts(tokens: Tokens) -> tuple[Ints, Ints]:
    """Return, per position, the last MAX_ORDER + 1 bases as a base-4 number, and the run of bases.

    Digits of the number beyond the run mean nothing.
    """
    base = tokens.astype(np.int64) - A
    real = (base >= 0) & (base < 4)
    base[~real] = 0
    code = np.zeros_like(base)
    for back in range(min(MAX_ORDER + 1, len(base))):
        code[back:] += base[: len(base) - back] * 4**back
    position = np.arange(1, len(base) + 1)
    run = position - np.maximum.accumulate(np.where(real, 0, position))
    return code, run


def _log_probabilities(counts: Floats) -> list[Floats]:
    """Return log p of every (order + 1)-mer's last base given the ones before it, for each order."""
    by_order = []
    previous = np.full(4, 0.25)
    for order in range(MAX_ORDER + 1):
        # The oldest base is the highest digit: summing over the leading axis forgets it.
        counts_C4 = counts.reshape(-1, 4**order, 4).sum(axis=0)
        prior_C4 = np.resize(previous.reshape(-1, 4), counts_C4.shape)
        p_C4 = (counts_C4 + PSEUDO_COUNT * prior_C4) / (counts_C4.sum(axis=1, keepdims=True) + PSEUDO_COUNT)
        previous = p_C4.ravel()
        by_order.append(np.log(previous))
    return by_order
