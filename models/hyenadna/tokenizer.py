"""Single-nucleotide tokens: one id per base, 256-entry table, no merging."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ModelError

VOCABULARY = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N")
SEP, PAD, UNK, A, C, G, T, N = (VOCABULARY.index(token) for token in ("[SEP]", "[PAD]", "[UNK]", *"ACGTN"))
_SPELLINGS = {"A": A, "C": C, "G": G, "T": T, "U": T, "N": N} | dict.fromkeys("RYSWKMBDHV", N)


def _table() -> NDArray[np.uint8]:
    table = np.full(256, UNK, dtype=np.uint8)
    for base, token in _SPELLINGS.items():
        table[[ord(base), ord(base.lower())]] = token
    table.flags.writeable = False
    return table


TABLE = _table()


class TokenBatch(NamedTuple):
    """Sequences of several lengths as one input of the model.

    Attributes:
        ids_BL: (B, L) int64, L the length of the longest sequence; [PAD] after the end of the others.
        mask_BL: (B, L) bool, true at tokens of a sequence: leave the rest out of means and losses.
    """

    ids_BL: Tensor
    mask_BL: Tensor


class Tokenizer:
    """Bases to ids and back: case is ignored, U is T, IUPAC codes are N, anything else is [UNK].

    No [CLS]: no published training or evaluation had one (the standalone script's default call adds it).
    Nothing written in the text is parsed as a special token.

    Args:
        sep: end every sequence with [SEP], as the Hugging Face port's tokenizer does.

    >>> Tokenizer().encode("acgtuRN.").tolist()
    [7, 8, 9, 10, 10, 11, 11, 6]
    >>> Tokenizer(sep=True).encode("AC").tolist()
    [7, 8, 1]
    >>> Tokenizer().decode([7, 8, 9, 10, 11, 1])
    'ACGTN[SEP]'
    """

    def __init__(self, *, sep: bool = False):
        self.sep = sep

    def encode_array(self, sequence: str | bytes) -> NDArray[np.uint8]:
        """Encode one sequence, shape (L,), or (L + 1,) with `sep`; one id per character of a str."""
        raw = sequence.encode("ascii", "replace") if isinstance(sequence, str) else sequence
        ids_L = TABLE[np.frombuffer(raw, dtype=np.uint8)]
        return np.append(ids_L, np.uint8(SEP)) if self.sep else ids_L

    def encode(self, sequence: str | bytes) -> Tensor:
        """Encode as `encode_array`, into an int64 tensor ready for the model (add the batch axis).

        Raises:
            ModelError: several sequences are given.
        """
        if not isinstance(sequence, str | bytes):
            raise ModelError(
                f"encode takes one sequence, not a {type(sequence).__name__}",
                remedy="a str is one sequence; Tokenizer()(sequences) makes a padded batch",
            )
        return torch.from_numpy(self.encode_array(sequence).astype(np.int64))

    def __call__(self, sequences: Iterable[str | bytes]) -> TokenBatch:
        """Encode several sequences as one batch, padded on the right with [PAD].

        >>> Tokenizer()(["ACG", "A"]).ids_BL.tolist()
        [[7, 8, 9], [7, 4, 4]]
        """
        rows = [self.encode(sequence) for sequence in sequences]
        ids_BL = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        lengths_B1 = torch.tensor([[len(row)] for row in rows])
        return TokenBatch(ids_BL, torch.arange(ids_BL.shape[1]) < lengths_B1)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """Decode ids to text; specials are spelled in brackets.

        Raises:
            ModelError: an id is not a token's (the embedding's padding rows have no text).
        """
        numbers = ids.tolist() if isinstance(ids, Tensor) else [int(i) for i in ids]
        for number in numbers:
            if not 0 <= number < len(VOCABULARY):
                raise ModelError(
                    f"id {number} is not a token", remedy=f"ids run from 0 to {len(VOCABULARY) - 1}"
                )
        return "".join(VOCABULARY[number] for number in numbers)
