"""In-context learning: demonstrations, then a sequence to classify; the class is the next token, a letter.

A demonstration is sequence [SEP] letter [SEP], the end of a prompt is sequence [SEP], and the model's next
token is the answer. After evals/instruction_tuned_genomics.py of HyenaDNA (arXiv 2306.15794), which pads
sequences on the left to one length; here nothing is padded within a prompt, for the model reads [PAD] as it
reads any token.

The demonstrations are the same for all predictions, so their states are computed once (see
`hyenadna.engine.suffix`), and a sequence costs what its tokens cost.

B sequence, L token, V vocabulary row, C class, N record, M demonstration of a prompt.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.batching import BatchItem, Engine, make_budget
from hyenacli.inference.embedding import check_finite
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.readers.records import OK, SequenceRecord
from hyenadna import DemonstrationsConfig, HyenaDNA, Tokenizer
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.tokenizer import PAD, SEP

Ids = NDArray[np.uint8]
Floats = NDArray[np.float64]
_TOKENIZER = Tokenizer()

# The letters of so many classes; those of two and of three are the paper's.
LETTERS = {2: "AN", 3: "AGN", 4: "ACGN", 5: "ACGTN"}
_FRESH, _FIXED = 3, 4  # words of Philox counters; 0 to 2 are those of `train.epochs`


def letter_ids(letters: str) -> list[int]:
    """Return the tokens of letters.

    >>> letter_ids("AN")
    [7, 11]
    """
    ids: list[int] = _TOKENIZER.encode_array(letters).tolist()
    return ids


def prompt_query(ids_L: Ids) -> Ids:
    """Return the end of a prompt: the sequence to classify and [SEP]."""
    return np.append(ids_L, np.uint8(SEP))


def prompt_demonstrations(demonstrations: Iterable[tuple[Ids, int]]) -> Ids:
    """Return the beginning of a prompt, from sequences and the tokens of their letters; perhaps empty.

    >>> prompt_demonstrations([(np.array([7, 8], np.uint8), 11)]).tolist()
    [7, 8, 1, 11, 1]
    """
    parts = [np.append(ids_L, np.array([SEP, letter, SEP], np.uint8)) for ids_L, letter in demonstrations]
    return np.concatenate([np.empty(0, np.uint8), *parts])


def middle(length: int, max_bases: int) -> slice:
    """Return the middle of a sequence that has more than `max_bases` bases; else all of it.

    >>> middle(10, 4), middle(3, 4)
    (slice(3, 7, None), slice(0, 4, None))
    """
    start = max(0, (length - max_bases) // 2)
    return slice(start, start + max_bases)


def max_sequence_bases(longest_input: int, demonstrations: int, given: int | None) -> int:
    """Return the most bases of a sequence of a prompt: as given, or what leaves room for all sequences.

    Args:
        longest_input: tokens that the model takes.
        demonstrations: number before the sequence to classify.
        given: the user's number, or None.

    Raises:
        UserError: prompts would be longer than the model's longest input.
    """
    limit = (longest_input - 1 - 3 * demonstrations) // (demonstrations + 1)
    if limit < max(1, given or 1):
        problem = f"{demonstrations} demonstrations and a sequence leave {max(0, limit):,} bases to each"
        raise UserError(
            f"{problem} in the model's {longest_input:,} tokens",
            remedy="give fewer --shots, a smaller --max-length or a model that reads more",
        )
    return given or limit


class Shots:
    """Choice of the records that demonstrate: as many of each class, in random order, none twice in a prompt.

    Args:
        classes: of every record (N,).
        shots: demonstrations of each class.
    """

    def __init__(self, classes: Sequence[int], n_classes: int, shots: int, seed: int) -> None:
        classes_N = np.array(classes, np.int64)
        self._members = [np.flatnonzero(classes_N == k) for k in range(n_classes)]
        self._shots, self._seed = shots, seed

    def fixed(self) -> list[int]:
        """Draw the indices of the demonstrations of all predictions, in order: a function of the seed."""
        return self._draw(_FIXED, 0, None)[0]

    def fresh(self, number: int, record: int) -> tuple[list[int], list[bool]]:
        """Draw the demonstrations of a training example: a function of the seed and the example's number.

        Args:
            number: of the example in the training stream.
            record: index of its record, which never demonstrates itself.

        Returns:
            The indices of the demonstrating records in order, and a fair coin for each.
        """
        return self._draw(_FRESH, number, record)

    def _draw(self, purpose: int, number: int, without: int | None) -> tuple[list[int], list[bool]]:
        words = np.random.Philox(key=self._seed, counter=[0, number, purpose, 0])
        chosen: list[int] = []
        for members in self._members:
            pool = members if without is None else members[members != without]
            chosen += _sample(pool.tolist(), words.random_raw(self._shots).tolist())
        order = np.argsort(words.random_raw(len(chosen)), kind="stable")
        coins = words.random_raw(len(chosen)) & np.uint64(1)
        return [chosen[i] for i in order.tolist()], (coins == 1).tolist()


def _sample(pool: list[int], words: list[int]) -> list[int]:
    """Draw as many of a pool as there are 64-bit random words, none twice, by the Fisher-Yates shuffle."""
    for i, word in enumerate(words):
        j = i + (word * (len(pool) - i) >> 64)
        pool[i], pool[j] = pool[j], pool[i]
    return pool[: len(words)]


def answer_in_context(
    model: HyenaDNA,
    records: Iterable[SequenceRecord],
    options: EmbeddingOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[tuple[SequenceRecord, int, Floats | None]]:
    """Predict the classes of records with a model that has demonstrations, in their order.

    A record longer than the demonstrations' `max_length` is cut to its middle. The logits (C,) are those of
    the letters of the classes, less the largest of all vocabulary rows: a 0 among them says that the
    likeliest token is that letter. Their softmax leaves out the other rows, whereas the paper takes the
    likeliest of all rows, and another token than a letter for a mistake.

    Args:
        model: with demonstrations, in eval mode, on the device to use.
        records: those whose status is not OK pass through.
        options: which strands are read; the logits of both are averaged.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Returns:
        Each record, the bases of it that were read, and the logits, None if its status is not OK.

    Raises:
        UsageError: the options ask for windows.
        UserError: the model gave values that are not finite, or one sequence does not fit into memory.
    """
    demonstrations = model.config.demonstrations
    assert demonstrations is not None  # noqa: S101  (internal invariant)
    if options.window is not None or options.stride is not None:
        raise UsageError(
            "the model reads demonstrations before a sequence, and no windows",
            at="--window" if options.window is not None else "--stride",
            remedy=f"leave it out: longer sequences are cut to the {demonstrations.max_length:,} bases of "
            "their middle",
        )
    device = next(model.parameters()).device
    logits = _Answers(model, demonstrations, precision or nullcontext())
    engine: Engine[None, Floats] = Engine(
        lambda ids_BL, mask_BL, _batch: list(logits(ids_BL, mask_BL).cpu().double().numpy()),
        budget=make_budget(batch_size, model.config.d_model, 0, device),
        device=device,
    )
    return _regroup(engine, records, options, demonstrations)


class _Answers:
    """The logits (B, V) of the tokens that follow prompts, from what comes after the demonstrations.

    Args:
        demonstrations: what all prompts begin with.
        precision: entered around every forward pass.
    """

    def __init__(
        self, model: HyenaDNA, demonstrations: DemonstrationsConfig, precision: AbstractContextManager[Any]
    ) -> None:
        self._model, self._precision = model, precision
        letters = dict(zip(demonstrations.labels, letter_ids(demonstrations.letters), strict=True))
        shots = ((_TOKENIZER.encode_array(bases), letters[label]) for bases, label in demonstrations.shots)
        self._prefix = torch.from_numpy(prompt_demonstrations(shots))
        self._room = 0

    def __call__(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Compute the logits of rows of tokens, each after the demonstrations."""
        start = len(self._prefix)
        rows = zip(ids_BL, mask_BL.sum(dim=1).tolist(), strict=True)
        with self._precision:
            reference = self._reference(ids_BL)
            states = reference.suffixes([Suffix(0, start, ids_L[:length]) for ids_L, length in rows])
            return self._model.lm_logits(torch.stack([states_lD[-1] for states_lD in states]))

    def _reference(self, ids_BL: Tensor) -> ReferencePass:
        """Return the pass over the demonstrations, with room for the tokens after them."""
        if ids_BL.shape[1] > self._room:
            self._room = ids_BL.shape[1]
            window_L = ids_BL.new_full((len(self._prefix) + self._room,), PAD)
            window_L[: len(self._prefix)] = self._prefix
            self._pass = ReferencePass(self._model, window_L[None], first=len(self._prefix))
        return self._pass


def _regroup(
    engine: Engine[None, Floats],
    records: Iterable[SequenceRecord],
    options: EmbeddingOptions,
    demonstrations: DemonstrationsConfig,
) -> Iterator[tuple[SequenceRecord, int, Floats | None]]:
    """Request the strands of every record, and join the answers in the order of the records."""
    waiting: deque[tuple[SequenceRecord, int, int]] = deque()

    def items() -> Iterator[BatchItem[None]]:
        for record in records:
            strands = options.readings(record.strand) if record.status == OK else ()
            region = record.bases[record.left : record.left + len(record)]
            bases = region[middle(len(region), demonstrations.max_length)]
            waiting.append((record, len(bases), len(strands)))
            for reverse in strands:
                read = reverse_complement(bases) if reverse else bases
                yield BatchItem(prompt_query(_TOKENIZER.encode_array(read)), None)

    def finished() -> Iterator[tuple[SequenceRecord, int, Floats | None]]:
        while waiting and len(answers) >= waiting[0][2]:
            record, n_bases, strands = waiting.popleft()
            of_record = [answers.popleft() for _ in range(strands)]
            yield record, n_bases, _logits(record, of_record, demonstrations) if of_record else None

    answers: deque[Floats] = deque()
    for answer in engine.run(items()):
        answers.append(answer)
        yield from finished()
    yield from finished()


def _logits(
    record: SequenceRecord, strands: Sequence[Floats], demonstrations: DemonstrationsConfig
) -> Floats:
    """Compute the logits of the letters (C,) from all strands of a record."""
    logits_V = np.mean(strands, axis=0)
    check_finite(logits_V, record)
    letters = letter_ids(demonstrations.letters)
    of_letters_C: Floats = (logits_V - logits_V.max())[letters] / demonstrations.temperature
    return of_letters_C
