"""Constraints on new bases: templates, forbidden words, stops, repeats and GC content.

Words and templates are IUPAC letters. What is forbidden is held by an automaton (Aho and Corasick 1975) whose
states are what of a forbidden word has been written; states from which nothing allowed leads on are left out
beforehand, so that no sequence runs into a dead end.

B sequence, S state of the automaton, L new base; bases are 0 to 3 for A, C, G and T, sets of bases are bits.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError, check_range

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_IUPAC = {
    **dict(zip("ACGT", (1, 2, 4, 8), strict=True)),
    **dict(zip("URYSWKM", (8, 5, 10, 6, 9, 12, 3), strict=True)),
    **dict(zip("BDHVN", (14, 13, 11, 7, 15), strict=True)),
}
_COMPLEMENT = str.maketrans("ACGTURYSWKMBDHVN", "TGCAAYRSWMKVHDBN")
_STOP_CODONS = ("TAA", "TAG", "TGA")
_MAX_WORDS = 1 << 16
_BITS = 1 << np.arange(4)


def parse_iupac(text: str, flag: str) -> str:
    """Return IUPAC letters in upper case.

    Raises:
        UsageError: it is empty or has another letter.
    """
    letters = text.strip().upper()
    wrong = next((letter for letter in letters if letter not in _IUPAC), None)
    if not letters or wrong:
        problem = f"'{wrong}' is not an IUPAC letter" if wrong else "a sequence is empty"
        raise UsageError(problem, at=flag, remedy="use A, C, G, T and ambiguity codes such as N and R")
    return letters


def parse_words(text: str | None, flag: str) -> tuple[str, ...]:
    """Return comma-separated IUPAC words; UsageError as `parse_iupac`."""
    return () if text is None else tuple(parse_iupac(word, flag) for word in text.split(","))


def parse_gc(text: str | None) -> tuple[float, float] | None:
    """Return limits of the share of G and C.

    Raises:
        UsageError: not LO-HI in percent.

    >>> parse_gc("30-65")
    (0.3, 0.65)
    """
    if text is None:
        return None
    try:
        low, high = (float(part.strip().removesuffix("%")) / 100 for part in text.split("-"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise UsageError(f"no range of percent: '{text}'", at="--gc", remedy="write it as 30-65")
    return low, high


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What new bases must be.

    Attributes:
        length: most new bases.
        template: IUPAC letters of the first of them.
        forbid: IUPAC words that must not end in them, on either strand.
        max_homopolymer: longest run of a base, or None.
        no_repeat: length of words that must not come twice, or None.
        gc: limits of the share of G and C, or None.
        stop: words that end a sequence.
        stop_codon: whether a stop codon, in frame with the first new base, ends it.

    Raises:
        UsageError: a number is out of its range, or the template is longer than the sequence.
    """

    length: int
    template: str = ""
    forbid: tuple[str, ...] = ()
    max_homopolymer: int | None = None
    no_repeat: int | None = None
    gc: tuple[float, float] | None = None
    stop: tuple[str, ...] = ()
    stop_codon: bool = False

    def __post_init__(self) -> None:
        check_range("--length", self.length, 1)
        check_range("--max-homopolymer", self.max_homopolymer, 1)
        check_range("--no-repeat", self.no_repeat, 8, 64)
        if len(self.template) > self.length:
            raise UsageError(
                f"has {len(self.template):,} letters for {self.length:,} new bases",
                at="--template",
                remedy="shorten it, or raise --length",
            )

    def fits(self, new_L: Ints) -> bool:
        """Return whether the GC content of a complete sequence is within its limits."""
        if self.gc is None:
            return True
        share = float(np.mean((new_L == 1) | (new_L == 2)))
        return self.gc[0] <= share <= self.gc[1]

    def stopped(self, new_BL: Ints) -> Bools:
        """Return which sequences, all of one length, end with a stop."""
        length = new_BL.shape[1]
        stopped_B = np.zeros(len(new_BL), np.bool_)
        words = [*self.stop, *(_STOP_CODONS if self.stop_codon and length % 3 == 0 else ())]
        for word in words:
            if len(word) <= length:
                masks = np.array([_IUPAC[letter] for letter in word])
                matches_BL = (_BITS[new_BL[:, length - len(word) :]] & masks) > 0
                stopped_B = np.asarray(stopped_B | matches_BL.all(axis=1), np.bool_)
        return stopped_B


class Automaton:
    """Which bases may come next, by what has been written.

    Args:
        constraints: of the new bases.

    Raises:
        UsageError: no sequence meets them, or the forbidden words stand for too many.
    """

    def __init__(self, constraints: Constraints) -> None:
        words = _words(constraints)
        self._longest = max(map(len, words), default=0)
        self._next_S4, forbidden_S = _aho_corasick(words)
        self._open_S4 = ~forbidden_S[self._next_S4]
        self._viable_S = _endless(self._next_S4, self._open_S4)
        masks = [(_IUPAC[letter] & _BITS) > 0 for letter in constraints.template]
        self._allowed: list[Bools] = []
        viable_S = self._viable_S
        for mask_4 in reversed(masks):
            self._allowed.append(self._open_S4 & mask_4 & viable_S[self._next_S4])
            viable_S = np.asarray(self._allowed[-1].any(axis=1))
        self._allowed.reverse()
        self._free_S4 = self._open_S4 & self._viable_S[self._next_S4]
        if not self.allowed(0)[0].any():
            raise UsageError(
                "no sequence meets the constraints: every one that fits --template has a forbidden word",
                remedy="change --template, or forbid less",
            )

    def start(self, prompt: bytes) -> int:
        """Return the state after a prompt; words in the prompt itself are not held against it."""
        state = 0
        for letter in prompt[-self._longest :] if self._longest else b"":
            base = b"ACGT".find(letter)
            state = int(self._next_S4[state, base]) if base >= 0 else 0
        return state

    def allowed(self, position: int) -> Bools:
        """Return which bases may be written at a position of the new bases, from each state (S, 4)."""
        return self._allowed[position] if position < len(self._allowed) else self._free_S4

    def move(self, states_B: Ints, bases_B: Ints) -> Ints:
        """Return the states after writing a base to each sequence."""
        return self._next_S4[states_B, bases_B]


def _words(constraints: Constraints) -> list[tuple[int, ...]]:
    """Return the forbidden words of both strands as bases, ambiguity codes resolved."""
    spelt = {word for text in constraints.forbid for word in (text, text.translate(_COMPLEMENT)[::-1])}
    words: set[tuple[int, ...]] = set()
    for text in sorted(spelt):
        letters = [[base for base in range(4) if _IUPAC[letter] >> base & 1] for letter in text]
        if np.prod([float(len(bases)) for bases in letters]) > _MAX_WORDS:
            raise UsageError(
                f"{text} stands for more than {_MAX_WORDS:,} words",
                at="--forbid",
                remedy="give a word with fewer ambiguity codes",
            )
        words.update(product(*letters))
    if constraints.max_homopolymer is not None:
        words |= {(base,) * (constraints.max_homopolymer + 1) for base in range(4)}
    return sorted(words)


def _aho_corasick(words: Iterable[Sequence[int]]) -> tuple[Ints, Bools]:
    """Build the automaton: the next state of each state and base (S, 4), and states that end a word (S,)."""
    children: list[list[int]] = [[-1] * 4]
    ends = [False]
    for word in words:
        state = 0
        for base in word:
            if children[state][base] < 0:
                children[state][base] = len(children)
                children.append([-1] * 4)
                ends.append(False)
            state = children[state][base]
        ends[state] = True
    suffix = [0] * len(children)
    queue = deque([0])
    while queue:
        state = queue.popleft()
        ends[state] = ends[state] or ends[suffix[state]]
        for base, child in enumerate(children[state]):
            shorter = children[suffix[state]][base] if state else 0
            if child < 0:
                children[state][base] = shorter
            else:
                suffix[child] = shorter
                queue.append(child)
    return np.array(children), np.array(ends)


def _endless(next_S4: Ints, open_S4: Bools) -> Bools:
    """Return the states (S,) from which bases can be written without end."""
    viable_S = np.ones(len(next_S4), np.bool_)
    while True:
        still_S = np.asarray((open_S4 & viable_S[next_S4]).any(axis=1))
        if (still_S == viable_S).all():
            return viable_S
        viable_S = still_S


class RepeatGuard:
    """Words of one sequence, so that none comes twice.

    Args:
        size: bases of a word.
        prompt: what comes before.
    """

    def __init__(self, size: int, prompt: bytes) -> None:
        self._size, self._words = size, set[bytes]()
        self._text = bytearray(prompt.translate(_TO_BASES))
        for end in range(size, len(self._text) + 1):
            self._words.add(bytes(self._text[end - size : end]))

    def allowed(self) -> list[bool]:
        """Return which bases would make no word that has come before."""
        start = bytes(self._text[len(self._text) - self._size + 1 :])
        return [len(start) < self._size - 1 or start + bytes((base,)) not in self._words for base in range(4)]

    def push(self, base: int) -> None:
        """Write a base."""
        self._text.append(base)
        if len(self._text) >= self._size:
            self._words.add(bytes(self._text[-self._size :]))


_TO_BASES = bytes(b"ACGT".find(letter) if letter in b"ACGT" else 4 for letter in range(256))
