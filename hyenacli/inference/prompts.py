"""Prompts of in-context learning: demonstrations, then the sequence asked about; a class is a letter.

A demonstration is sequence [SEP] letter [SEP], the end of a prompt is sequence [SEP], and the model's next
token is the answer. After evals/instruction_tuned_genomics.py of HyenaDNA (arXiv 2306.15794), which pads
sequences on the left to one length; here nothing is padded within a prompt, for the model reads [PAD] as it
reads any token.

N record, M demonstration of a prompt, L token.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenadna import Tokenizer
from hyenadna.tokenizer import SEP

Ids = NDArray[np.uint8]

# The letters of so many classes; those of two and of three are the paper's.
LETTERS = {2: "AN", 3: "AGN", 4: "ACGN", 5: "ACGTN"}
_FRESH, _FIXED = 3, 4  # words of Philox counters; 0 to 2 are those of `train.epochs`


def letter_ids(letters: str) -> list[int]:
    """The tokens of letters.

    >>> letter_ids("AN")
    [7, 11]
    """
    ids: list[int] = Tokenizer().encode_array(letters).tolist()
    return ids


def asked(ids_L: Ids) -> Ids:
    """The end of a prompt: the sequence asked about and [SEP]."""
    return np.append(ids_L, np.uint8(SEP))


def shown(demonstrations: Iterable[tuple[Ids, int]]) -> Ids:
    """The beginning of a prompt, from sequences and the tokens of their letters; perhaps empty.

    >>> shown([(np.array([7, 8], np.uint8), 11)]).tolist()
    [7, 8, 1, 11, 1]
    """
    parts = [np.append(ids_L, np.array([SEP, letter, SEP], np.uint8)) for ids_L, letter in demonstrations]
    return np.concatenate([np.empty(0, np.uint8), *parts])


def middle(length: int, most: int) -> slice:
    """The middle of a sequence that has more than `most` bases; else all of it.

    >>> middle(10, 4), middle(3, 4)
    (slice(3, 7, None), slice(0, 4, None))
    """
    start = max(0, (length - most) // 2)
    return slice(start, start + most)


def most_bases(longest_input: int, demonstrations: int, given: int | None) -> int:
    """How many bases a sequence of a prompt may have: as given, or what leaves room for all of them.

    Args:
        longest_input: tokens that the model takes.
        demonstrations: how many come before the sequence asked about.
        given: the user's number, or None.

    Raises:
        UserError: prompts would be longer than the model's longest input.
    """
    most = (longest_input - 1 - 3 * demonstrations) // (demonstrations + 1)
    if most < max(1, given or 1):
        what = f"{demonstrations} demonstrations and a sequence leave {max(0, most):,} bases to each"
        raise UserError(
            f"{what} in the model's {longest_input:,} tokens",
            remedy="give fewer --shots, a smaller --max-length or a model that reads more",
        )
    return given or most


class Shots:
    """Which records demonstrate: as many of each class, in random order, none twice in a prompt.

    Args:
        classes: of every record (N,).
        n_classes: how many there are.
        shots: demonstrations of each class.
        seed: of the choice.
    """

    def __init__(self, classes: Sequence[int], n_classes: int, shots: int, seed: int) -> None:
        classes_N = np.array(classes, np.int64)
        self._members = [np.flatnonzero(classes_N == k) for k in range(n_classes)]
        self._shots, self._seed = shots, seed

    def fixed(self) -> list[int]:
        """The places of the demonstrations of all predictions, in order: a function of the seed."""
        return self._draw(_FIXED, 0, None)[0]

    def fresh(self, number: int, place: int) -> tuple[list[int], list[bool]]:
        """The demonstrations of a training example: a function of the seed and the example's number.

        Args:
            number: of the example in the training stream.
            place: of its record, which never demonstrates itself.

        Returns:
            The places of the records in order, and a fair coin for each.
        """
        return self._draw(_FRESH, number, place)

    def _draw(self, purpose: int, number: int, without: int | None) -> tuple[list[int], list[bool]]:
        words = np.random.Philox(key=self._seed, counter=[0, number, purpose, 0])
        chosen: list[int] = []
        for members in self._members:
            pool = members if without is None else members[members != without]
            chosen += _some(pool.tolist(), words.random_raw(self._shots).tolist())
        order = np.argsort(words.random_raw(len(chosen)), kind="stable")
        coins = words.random_raw(len(chosen)) & np.uint64(1)
        return [chosen[i] for i in order.tolist()], (coins == 1).tolist()


def _some(pool: list[int], words: list[int]) -> list[int]:
    """As many of a pool as there are 64-bit random words, none twice: the shuffle of Fisher and Yates."""
    for i, word in enumerate(words):
        j = i + (word * (len(pool) - i) >> 64)
        pool[i], pool[j] = pool[j], pool[i]
    return pool[: len(words)]
