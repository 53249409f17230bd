"""Words of k bases as base-4 numbers.

L bases, P words, K bases of a word.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DIGITS = np.full(256, 4, dtype=np.uint8)
"""The digit of each letter; 4 of what is no base."""
DIGITS[np.frombuffer(b"ACGT", dtype=np.uint8)] = range(4)


def word_codes(digit_L: Array, k: int, dtype: npt.DTypeLike = np.int64) -> tuple[Array, Array]:
    """Return the words (P,) of k bases that are all real, and where each begins.

    Args:
        digit_L: 0 to 3 for A, C, G and T, uint8; larger for anything else.
        k: bases of a word.
        dtype: of the codes, in which the first base is the highest digit.

    >>> codes, starts = word_codes(np.array([3, 0, 1, 4, 2, 2], np.uint8), 2)
    >>> codes.tolist(), starts.tolist()
    ([12, 1, 10], [0, 1, 4])
    """
    count = len(digit_L) - k + 1
    if count < 1:
        return np.empty(0, dtype), np.empty(0, np.intp)
    code_P = pack_words(digit_L & 3, k, dtype)
    gap_G = np.flatnonzero(digit_L > 3)
    if not gap_G.size:
        return code_P, np.arange(count)
    real_P = np.ones(count, np.bool_)
    for offset in range(k):
        start_G = gap_G - offset
        real_P[start_G[(start_G >= 0) & (start_G < count)]] = False
    return code_P[real_P], np.flatnonzero(real_P)


def pack_words(digit_L: Array, k: int, dtype: npt.DTypeLike) -> Array:
    """Return the word (P,) of the k bases from each base on, of digits 0 to 3; there are at least k."""
    word_P = digit_L.astype(dtype)
    # Words of `width` bases become wider by those of the word `step` bases on; the bases they share agree.
    width = 1
    while width < k:
        step = min(width, k - width)
        word_P = (word_P[:-step] << word_P.dtype.type(2 * step)) | word_P[step:]
        width += step
    return word_P


def reverse_complements(table: Array, k: int) -> Array:
    """Return a table over all words (4 ** K, ...) with each word's entry at its reverse complement.

    >>> reverse_complements(np.arange(4), 1).tolist()
    [3, 2, 1, 0]
    """
    cells = table.reshape((4,) * k + table.shape[1:])
    axes = (*range(k)[::-1], *range(k, cells.ndim))
    flipped: Array = np.flip(cells.transpose(axes), axis=tuple(range(k))).reshape(table.shape)
    return flipped
