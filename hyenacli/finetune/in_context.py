"""In-context learning: a model is trained to say the class of a sequence as a letter, after demonstrations.

B example, L token, D width, V vocabulary row, C class.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from torch import Tensor, nn

from hyenacli.adaptation.epochs import Places
from hyenacli.adaptation.evaluator import Logits
from hyenacli.adaptation.examples import Bools, HostBatch
from hyenacli.adaptation.labels import Targets
from hyenacli.errors import UsageError, UserError
from hyenacli.finetune.label_splits import LabelSplits
from hyenacli.finetune.labelled_set import LabelledSet
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.inference.prompts import LETTERS, Ids, Shots, asked, letter_ids, middle, most_bases, shown
from hyenacli.inference.sampling import complement, padded
from hyenacli.readers.labelled_record import LabelledRecord
from hyenadna import DemonstrationsConfig, HyenaDNA, Tokenizer
from hyenadna.heads import pool
from hyenadna.tokenizer import PAD

_TOKENIZER = Tokenizer()


def check_classes(settings: FinetuneSettings, data: LabelledSet) -> None:
    """Refuse labels that are not classes of sequences with a letter for each, or too few records of one.

    Raises:
        UsageError: the labels are of another kind, or the classes are too many.
        UserError: a class has fewer training records than prompts need.
    """
    scheme = data.scheme
    if scheme.level != "sequence" or not scheme.has_classes:
        kind = "bases" if scheme.level != "sequence" else f"a {scheme.task}"
        raise UsageError(
            f"a letter stands for the class of a sequence, and the labels are those of {kind}",
            at="--method icl",
            remedy="choose another method, such as --method full",
        )
    if scheme.n_outputs not in LETTERS:
        raise UsageError(
            f"there are letters for {min(LETTERS)} to {max(LETTERS)} classes, not for {scheme.n_outputs}",
            at="--method icl",
            remedy="choose another method, such as --method full",
        )
    # the sequence asked about, which training takes from the same records, does not demonstrate itself
    shots = settings.shots or 0
    need = shots + (settings.epochs != 0)
    for splits in data.splits:
        classes = [int(data.targets[i]) for i in splits.train.tolist()]
        for k, name in enumerate(scheme.names):
            if classes.count(k) < need:
                raise UserError(
                    f"class '{name}' has {classes.count(k)} training records, and {shots} shots need {need}",
                    at="--shots",
                    remedy="give fewer --shots, or more records",
                )


def choose_demonstrations(
    settings: FinetuneSettings, data: LabelledSet, splits: LabelSplits, longest_input: int
) -> DemonstrationsConfig:
    """What predictions are made with: shots of the training split, the same for the same seed.

    Args:
        settings: of the verb.
        data: the labelled records.
        splits: of them.
        longest_input: tokens that the model takes.

    Raises:
        UserError: the model has too little room for them.
    """
    names, places = data.scheme.names, splits.train.tolist()
    shots = settings.shots or 0
    most = most_bases(longest_input, shots * len(names), settings.max_length)
    classes = [int(data.targets[i]) for i in places]
    chosen = Shots(classes, len(names), shots, settings.seed).fixed()
    sequences = [data.records[places[i]].sequence for i in chosen]
    return DemonstrationsConfig(
        task=data.scheme.task,
        labels=names,
        letters=LETTERS[len(names)],
        shots=tuple(
            (bases[middle(len(bases), most)].decode(), names[classes[i]])
            for i, bases in zip(chosen, sequences, strict=True)
        ),
        max_length=most,
        rc=settings.rc == "mean",
    )


class PromptExamples:
    """Prompts with fresh demonstrations for every example; see `Examples`.

    Only the letter of the sequence asked about is learnt, among all rows of the vocabulary.

    Args:
        records: to learn from, and to demonstrate with.
        targets: the class of each.
        demonstrations: of the model: letters, and the most bases of a sequence, which is cut to its middle.
        settings: shots, seed, and whether demonstrations are read as reverse complement half of the time.

    Attributes:
        cut_short: how many sequences were cut to their middle.
    """

    def __init__(
        self,
        records: Sequence[LabelledRecord],
        targets: Sequence[Targets],
        demonstrations: DemonstrationsConfig,
        settings: FinetuneSettings,
    ) -> None:
        most, n_classes = demonstrations.max_length, len(demonstrations.labels)
        whole = [_TOKENIZER.encode_array(record.sequence) for record in records]
        self._ids: list[Ids] = [ids_L[middle(len(ids_L), most)] for ids_L in whole]
        self.cut_short = sum(len(ids_L) > most for ids_L in whole)
        self._classes = [int(target) for target in targets]
        self._per_class, self._mirror = settings.shots or 0, settings.rc_augment
        self._shots = Shots(self._classes, n_classes, self._per_class, settings.seed)
        self._letters = letter_ids(demonstrations.letters)

    @property
    def lengths(self) -> list[int]:
        """Tokens of every example, with the longest demonstrations that it may get."""
        room = 0
        for k in range(len(self._letters)):
            of_class = sorted(
                len(ids_L) for ids_L, own in zip(self._ids, self._classes, strict=True) if own == k
            )
            room += sum(of_class[len(of_class) - self._per_class :]) + 3 * self._per_class
        return [room + len(ids_L) + 1 for ids_L in self._ids]

    def read(self, numbers: range, places: Places, mirrored: Bools, length: int) -> HostBatch:
        """See `Examples`."""
        picked = zip(numbers, places.tolist(), mirrored.tolist(), strict=True)
        rows = [padded(self._prompt(number, place, turn), length) for number, place, turn in picked]
        return HostBatch(np.stack(rows), np.array([self._classes[i] for i in places.tolist()], np.int64))

    def _prompt(self, number: int, place: int, turn: bool) -> Ids:
        demonstrating, coins = self._shots.fresh(number, place)
        shots = (
            (self._strand(i, turn=self._mirror and coin), self._letters[self._classes[i]])
            for i, coin in zip(demonstrating, coins, strict=True)
        )
        return np.concatenate([shown(shots), asked(self._strand(place, turn=turn))])

    def _strand(self, place: int, *, turn: bool) -> Ids:
        return complement(self._ids[place]) if turn else self._ids[place]

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The logits (B, V) of the tokens after prompts, those of the letters first: a class is a column."""
        hyena = cast("HyenaDNA", model)
        ids_BL = inputs.long()
        logits_BV = hyena.lm_logits(pool(hyena.hidden(ids_BL), "last", ids_BL != PAD))
        others = [row for row in range(logits_BV.shape[1]) if row not in self._letters]
        return logits_BV[:, [*self._letters, *others]]


def label_share(logits: Sequence[Logits]) -> float:
    """How often the likeliest of all tokens is a letter, from logits of `answer_in_context`."""
    return float(np.mean([logits_C.max() == 0 for logits_C in logits]))
