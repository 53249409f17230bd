"""In-context learning: a model is trained to answer with the letter of a class, after demonstrations.

B example, L token, V vocabulary row, C class.
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from torch import Tensor, nn

from hyenacli.adaptation.examples import Bools, EpochExamples, Epochs, HostBatch, Ids, Indices
from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.errors import UsageError, UserError
from hyenacli.inference.in_context import (
    LETTERS,
    Shots,
    letter_ids,
    max_sequence_bases,
    middle,
    prompt_demonstrations,
    prompt_query,
)
from hyenacli.inference.sampling import complement, padded
from hyenacli.readers.tables import LabelledRecord
from hyenadna import DemonstrationsConfig, HyenaDNA, Tokenizer
from hyenadna.heads import pool
from hyenadna.tokenizer import PAD

_TOKENIZER = Tokenizer()


def check_classes(scheme: LabelScheme, targets: Sequence[Targets], shots: int, *, trained: bool) -> None:
    """Check that labels are classes of sequences with a letter for each, and that prompts can be filled.

    Args:
        scheme: meaning of the labels.
        targets: of the training records.
        shots: demonstrations of each class.
        trained: prompts are also made for the training records, which never demonstrate themselves.

    Raises:
        UsageError: the labels are of another kind, or the classes are too many.
        UserError: a class has fewer training records than prompts need.
    """
    remedy = "choose another method, such as --method full"
    if scheme.level != "sequence" or not scheme.has_classes:
        kind = "bases" if scheme.level != "sequence" else f"a {scheme.task}"
        what = f"a letter stands for the class of a sequence, and the labels are those of {kind}"
        raise UsageError(what, at="--method icl", remedy=remedy)
    if scheme.n_outputs not in LETTERS:
        what = f"there are letters for {min(LETTERS)} to {max(LETTERS)} classes, not for {scheme.n_outputs}"
        raise UsageError(what, at="--method icl", remedy=remedy)
    classes = [int(target) for target in targets]
    need = shots + trained
    for k, name in enumerate(scheme.names):
        if classes.count(k) < need:
            raise UserError(
                f"class '{name}' has {classes.count(k)} training records, and {shots} shots need {need}",
                at="--shots",
                remedy="give fewer --shots, or more records",
            )


def choose_demonstrations(
    scheme: LabelScheme,
    records: Sequence[LabelledRecord],
    targets: Sequence[Targets],
    *,
    shots: int,
    seed: int,
    longest_input: int,
    max_length: int | None,
    rc: bool,
) -> DemonstrationsConfig:
    """Choose the training records that all predictions are made with: the same for the same seed.

    Args:
        scheme: the classes.
        records: of the training split.
        targets: of each.
        shots: demonstrations of each class.
        seed: of the choice.
        longest_input: tokens that the model takes.
        max_length: most bases of a sequence; None is what leaves room for all.
        rc: predictions are the mean of both strands.

    Raises:
        UserError: the model has too little room for them.
    """
    names = scheme.names
    max_bases = max_sequence_bases(longest_input, shots * len(names), max_length)
    classes = [int(target) for target in targets]
    indices = Shots(classes, len(names), shots, seed).fixed()
    sequences = [records[i].sequence for i in indices]
    return DemonstrationsConfig(
        task=scheme.task,
        labels=names,
        letters=LETTERS[len(names)],
        shots=tuple(
            (bases[middle(len(bases), max_bases)].decode(), names[classes[i]])
            for i, bases in zip(indices, sequences, strict=True)
        ),
        max_length=max_bases,
        rc=rc,
    )


class PromptExamples(EpochExamples):
    """Prompts with fresh demonstrations for every example; see `EpochExamples`.

    Only the letter of the queried sequence is learnt, among all rows of the vocabulary.

    Args:
        demonstrations: of the model: letters, and the most bases of a sequence, which is cut to its middle.
        shots: demonstrations of each class.
        rc_augment: read demonstrations as reverse complement half of the time.

    Attributes:
        n_longer: number of sequences that were cut to their middle.
        lengths: tokens of every example, with the longest demonstrations that it may get.
    """

    def __init__(
        self,
        records: Sequence[LabelledRecord],
        targets: Sequence[Targets],
        demonstrations: DemonstrationsConfig,
        *,
        shots: int,
        seed: int,
        rc_augment: bool,
        order: Callable[[Sequence[int]], Epochs],
    ) -> None:
        max_bases, n_classes = demonstrations.max_length, len(demonstrations.labels)
        sequences = [_TOKENIZER.encode_array(record.sequence) for record in records]
        self.n_longer = sum(len(ids_L) > max_bases for ids_L in sequences)
        self._ids: list[Ids] = [ids_L[middle(len(ids_L), max_bases)] for ids_L in sequences]
        self._classes = [int(target) for target in targets]
        self._rc_augment = rc_augment
        self._shots = Shots(self._classes, n_classes, shots, seed)
        self._letters = letter_ids(demonstrations.letters)
        room = self._demonstration_tokens(shots)
        self.lengths = [room + len(ids_L) + 1 for ids_L in self._ids]
        super().__init__(self.lengths, order)

    def _demonstration_tokens(self, shots: int) -> int:
        """Return the tokens of the longest demonstrations."""
        tokens = 0
        for k in range(len(self._letters)):
            lengths = sorted(
                len(ids_L) for ids_L, label in zip(self._ids, self._classes, strict=True) if label == k
            )
            tokens += sum(lengths[len(lengths) - shots :]) + 3 * shots
        return tokens

    def batch(self, numbers: range, indices: Indices, reverse: Bools, length: int) -> HostBatch:
        """Stack prompts as tokens (B, L); see `EpochExamples`."""
        examples = zip(numbers, indices.tolist(), reverse.tolist(), strict=True)
        rows = [padded(self._prompt(number, i, reverse=rc), length) for number, i, rc in examples]
        return HostBatch(np.stack(rows), np.array([self._classes[i] for i in indices.tolist()], np.int64))

    def _prompt(self, number: int, index: int, *, reverse: bool) -> Ids:
        demonstrating, coins = self._shots.fresh(number, index)
        shots = (
            (self._strand(i, reverse=self._rc_augment and coin), self._letters[self._classes[i]])
            for i, coin in zip(demonstrating, coins, strict=True)
        )
        return np.concatenate(
            [prompt_demonstrations(shots), prompt_query(self._strand(index, reverse=reverse))]
        )

    def _strand(self, index: int, *, reverse: bool) -> Ids:
        return complement(self._ids[index]) if reverse else self._ids[index]

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Compute the logits (B, V) of the tokens after prompts, letters first: a class is a column."""
        hyena = cast("HyenaDNA", model)
        ids_BL = inputs.long()
        logits_BV = hyena.lm_logits(pool(hyena.hidden(ids_BL), "last", ids_BL != PAD))
        others = [row for row in range(logits_BV.shape[1]) if row not in self._letters]
        return logits_BV[:, [*self._letters, *others]]
