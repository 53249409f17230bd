"""Predictions of a model that is shown labelled sequences first: a class is the next token.

The demonstrations are the same for all sequences, so that their states are computed once (see
`hyenadna.engine.suffix`), and a sequence costs what its own tokens cost.

B sequence, L token of the longest, V vocabulary row, C class.
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
from hyenacli.inference.batching import Engine, Piece, make_budget
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.prompts import asked, letter_ids, middle, shown
from hyenacli.readers.records import OK, SequenceRecord
from hyenadna import DemonstrationsConfig, HyenaDNA, Tokenizer
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.tokenizer import PAD

Floats = NDArray[np.float64]
_TOKENIZER = Tokenizer()


def answer_in_context(
    model: HyenaDNA,
    stretches: Iterable[SequenceRecord],
    recipe: EmbeddingOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[tuple[SequenceRecord, int, Floats | None]]:
    """What a model with demonstrations says of stretches, in their order.

    A stretch longer than the demonstrations' `max_length` is cut to its middle. The logits (C,) are those of
    the letters of the classes, less the largest of all vocabulary rows: a 0 among them says that the
    likeliest token is that letter. Their softmax leaves out the other rows, whereas the paper takes the
    likeliest of all rows, and another token than a letter for a mistake.

    Args:
        model: with demonstrations, in eval mode, on the device to use.
        stretches: the records; those whose status is not OK pass through.
        recipe: which strands are read; the logits of both are averaged.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Returns:
        Each stretch, the bases of it that were read, and the logits, None where its status is not OK.

    Raises:
        UsageError: the recipe asks for windows.
        UserError: the model gave values that are not finite, or one sequence does not fit into memory.
    """
    demonstrations = model.config.demonstrations
    assert demonstrations is not None  # noqa: S101  (a bug, not an input)
    if recipe.window is not None or recipe.stride is not None:
        raise UsageError(
            "the model reads demonstrations before a sequence, and no windows",
            at="--window" if recipe.window is not None else "--stride",
            remedy=f"leave it out: longer sequences are cut to the {demonstrations.max_length:,} bases of "
            "their middle",
        )
    device = next(model.parameters()).device
    engine: Engine[None, Tensor, Floats] = Engine(
        _Answers(model, demonstrations, precision or nullcontext()),
        lambda logits_BV, _batch: list(logits_BV.cpu().double().numpy()),
        budget=make_budget(batch_size, model.config.d_model, 0, device),
        device=device,
    )
    return _regroup(engine, stretches, recipe, demonstrations)


class _Answers:
    """The logits (B, V) of the tokens that follow prompts, from what comes after the demonstrations.

    Args:
        model: the model.
        demonstrations: what all prompts begin with.
        precision: entered around every forward pass.
    """

    def __init__(
        self, model: HyenaDNA, demonstrations: DemonstrationsConfig, precision: AbstractContextManager[Any]
    ) -> None:
        self._model, self._precision = model, precision
        letters = dict(zip(demonstrations.labels, letter_ids(demonstrations.letters), strict=True))
        shots = ((_TOKENIZER.encode_array(bases), letters[label]) for bases, label in demonstrations.shots)
        self._shown = torch.from_numpy(shown(shots))
        self._room = 0

    def __call__(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """The logits of rows of tokens, each after the demonstrations."""
        start = len(self._shown)
        rows = zip(ids_BL, mask_BL.sum(dim=1).tolist(), strict=True)
        with self._precision:
            reference = self._reference(ids_BL)
            states = reference.suffixes([Suffix(0, start, ids_L[:length]) for ids_L, length in rows])
            return self._model.lm_logits(torch.stack([states_lD[-1] for states_lD in states]))

    def _reference(self, ids_BL: Tensor) -> ReferencePass:
        """The pass over the demonstrations, with room for so many tokens after them."""
        if ids_BL.shape[1] > self._room:
            self._room = ids_BL.shape[1]
            window_L = ids_BL.new_full((len(self._shown) + self._room,), PAD)
            window_L[: len(self._shown)] = self._shown
            self._pass = ReferencePass(self._model, window_L[None], first=len(self._shown))
        return self._pass


def _regroup(
    engine: Engine[None, Tensor, Floats],
    stretches: Iterable[SequenceRecord],
    recipe: EmbeddingOptions,
    demonstrations: DemonstrationsConfig,
) -> Iterator[tuple[SequenceRecord, int, Floats | None]]:
    """Ask about the strands of every stretch, and join the answers in the order of the stretches."""
    waiting: deque[tuple[SequenceRecord, int, int]] = deque()

    def pieces() -> Iterator[Piece[None]]:
        for stretch in stretches:
            strands = recipe.readings(stretch.strand) if stretch.status == OK else ()
            region = stretch.bases[stretch.left : stretch.left + len(stretch)]
            bases = region[middle(len(region), demonstrations.max_length)]
            waiting.append((stretch, len(bases), len(strands)))
            for reverse in strands:
                read = reverse_complement(bases) if reverse else bases
                yield Piece(asked(_TOKENIZER.encode_array(read)), None)

    def finished() -> Iterator[tuple[SequenceRecord, int, Floats | None]]:
        while waiting and len(answers) >= waiting[0][2]:
            stretch, n_bases, strands = waiting.popleft()
            own = [answers.popleft() for _ in range(strands)]
            yield stretch, n_bases, _logits(stretch, own, demonstrations) if own else None

    answers: deque[Floats] = deque()
    for answer in engine.run(pieces()):
        answers.append(answer)
        yield from finished()
    yield from finished()


def _logits(
    stretch: SequenceRecord, strands: Sequence[Floats], demonstrations: DemonstrationsConfig
) -> Floats:
    """The logits of the letters (C,), of all readings of a stretch."""
    logits_V = np.mean(strands, axis=0)
    if not np.isfinite(logits_V).all():
        raise UserError(
            "the model gives values that are not finite",
            at=stretch.id,
            remedy="use --dtype float32, or check the model with `hyena models verify`",
        )
    letters = letter_ids(demonstrations.letters)
    of_letters_C: Floats = (logits_V - logits_V.max())[letters] / demonstrations.temperature
    return of_letters_C
