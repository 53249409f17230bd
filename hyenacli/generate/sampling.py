"""The choice of a base: filters, temperature and a draw, and how close the choice was.

B sequence; the 4 bases A, C, G, T.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError, check_range

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SamplingRule:
    """How a base is chosen: the filters act in the order of the attributes, and temperature after top-k.

    Attributes:
        temperature: divides log p; 0 takes the likeliest base.
        top_k: bases that remain.
        top_p: probability that remaining bases have together.
        min_p: least share of the likeliest base's probability.

    Raises:
        UsageError: a number is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 4
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        check_range("--temperature", self.temperature, 0)
        check_range("--top-k", self.top_k, 1, 4)
        check_range("--min-p", self.min_p, 0, 1)
        if not 0 < self.top_p <= 1:
            raise UsageError(f"{self.top_p} is no probability above 0", at="--top-p", remedy="use 0 to 1")

    def choose(self, log_p_B4: Floats, allowed_B4: Bools, draws_B: Floats) -> tuple[Ints, Floats]:
        """Choose a base for each sequence.

        Args:
            log_p_B4: of the model.
            allowed_B4: what the constraints leave; at least one base.
            draws_B: uniform in [0, 1).

        Returns:
            The bases (B,), and by how much the closest decision was made (B,), in probability.
        """
        scores_B4 = np.where(allowed_B4, log_p_B4, -np.inf)
        order_B4 = np.argsort(-scores_B4, axis=1, kind="stable")
        ranked_B4 = np.take_along_axis(scores_B4, order_B4, 1)
        if self.temperature == 0:
            return order_B4[:, 0], ranked_B4[:, 0] - ranked_B4[:, 1]
        margin_B = np.full(len(scores_B4), np.inf)
        if self.top_k < 4:
            # a share of the likeliest base's probability, as all other margins
            shares_B4 = np.exp(ranked_B4 - ranked_B4[:, :1])
            margin_B = np.minimum(margin_B, shares_B4[:, self.top_k - 1] - shares_B4[:, self.top_k])
            margin_B[~np.isfinite(ranked_B4[:, self.top_k])] = np.inf
            ranked_B4[:, self.top_k :] = -np.inf
        p_B4 = np.exp((ranked_B4 - ranked_B4[:, :1]) / self.temperature)
        p_B4 /= p_B4.sum(axis=1, keepdims=True)
        kept_B4 = p_B4 > 0
        if self.top_p < 1:
            before_B4 = np.cumsum(p_B4, axis=1) - p_B4
            distance_B4 = np.where(kept_B4, np.abs(before_B4 - self.top_p), np.inf)
            margin_B = np.minimum(margin_B, distance_B4[:, 1:].min(axis=1))
            kept_B4 &= before_B4 < self.top_p
        if self.min_p > 0:
            least_B1 = self.min_p * p_B4[:, :1]
            distance_B4 = np.where(kept_B4, np.abs(p_B4 - least_B1), np.inf)
            margin_B = np.minimum(margin_B, distance_B4[:, 1:].min(axis=1))
            kept_B4 &= p_B4 >= least_B1
        final_B4 = np.zeros_like(p_B4)
        np.put_along_axis(final_B4, order_B4, np.where(kept_B4, p_B4, 0), 1)
        edges_B4 = np.cumsum(final_B4 / final_B4.sum(axis=1, keepdims=True), axis=1)
        chosen_B = np.minimum((edges_B4 <= draws_B[:, None]).sum(axis=1), _last(final_B4))
        inner_B4 = np.where(edges_B4 < 1 - 1e-12, np.abs(edges_B4 - draws_B[:, None]), np.inf)
        return chosen_B, np.minimum(margin_B, inner_B4.min(axis=1))

    @property
    def tolerance(self) -> float:
        """Margin below which rounding in single precision could decide, rather than the model."""
        return 2e-5 / min(1.0, self.temperature or 1.0)


def _last(p_B4: Floats) -> Ints:
    """Return the last base with a probability."""
    return np.asarray(3 - np.argmax(p_B4[:, ::-1] > 0, axis=1))


def draws(seed: int, name: str, prompt: bytes, sample: int, attempt: int, count: int) -> Floats:
    """Return uniform numbers in [0, 1): a function of the seed, the prompt and its name, and both numbers."""
    text = b"%d\0%s\0%s\0%d" % (seed, name.encode(), prompt, sample)
    key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
    # Philox is counter-based: its raw words are a documented, version-independent function of both.
    words = np.random.Philox(key=key, counter=[0, 0, attempt, 0]).random_raw(count)
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)
