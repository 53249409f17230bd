"""Every substitution of a record, read by the suffix engine: it costs the bases after it, not the window.

L bases of a record in reading direction, D width, V one of A, C, G and T.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hyenacli.devices import is_out_of_memory
from hyenacli.errors import UserError
from hyenacli.inference.batching import make_budget
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine.inference import BASES
from hyenadna.engine.suffix import ReferencePass, Suffix

_TOKENIZER = Tokenizer()


class Substituted(NamedTuple):
    """A batch of substitutions.

    Attributes:
        positions: of the substituted bases, in the record.
        bases: what stands there instead, 0 to 3.
        states: from that position on, (n, D) each.
    """

    positions: list[int]
    bases: list[int]
    states: list[Tensor]

    def flat(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all states (n, D), the substitution that each is of (n,), and its position (n,)."""
        device = self.states[0].device
        counts = torch.tensor([len(states_nD) for states_nD in self.states], device=device)
        number_n = torch.arange(len(counts), device=device).repeat_interleave(counts)
        ranges = zip(self.positions, self.states, strict=True)
        at_n = torch.cat([torch.arange(at, at + len(states), device=device) for at, states in ranges])
        return torch.cat(self.states), number_n, at_n


class Substitutions:
    """Reads records with every base substituted by the three others.

    Args:
        model: in eval mode, on the device to use.
        batch_size: substitutions per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.
    """

    def __init__(
        self,
        model: HyenaDNA,
        batch_size: int | None = None,
        precision: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.model, self.precision = model, precision or nullcontext()
        self.device = next(model.parameters()).device
        self.exact = torch.float32 if self.device.type == "mps" else torch.float64
        self._tokens = make_budget(batch_size, model.config.d_model, 0, self.device).tokens
        self._sequences = batch_size or self._tokens

    @property
    def longest(self) -> int:
        """Bases of a record and its context that are read at once."""
        return min(self.model.longest_input, self.model.config.context)

    def strand(self, record: SequenceRecord, *, reverse: bool, with_last: bool = False) -> "StrandReading":
        """Read a record on one strand, with as much context before it as the model has room for.

        Args:
            record: at most `longest` bases.
            reverse: read the reverse complement.
            with_last: read the last base, too, which no prediction of a base needs.
        """
        bases, offset = record.reading(reverse=reverse)
        end = offset + len(record)
        begin = max(0, end - (0 if with_last else 1) - self.longest)
        ids_L = torch.from_numpy(_TOKENIZER.encode_array(bases[begin:end])).to(self.device).long()
        return StrandReading(self, ids_L, offset - begin, with_last=with_last)

    def batches(self, suffixes: list[Suffix]) -> Iterator[list[Suffix]]:
        """Yield suffixes, the longest first, as many as fit into a pass."""
        start = 0
        while start < len(suffixes):
            each = len(suffixes[start].ids) + 8
            batch = suffixes[start : start + max(1, min(self._sequences, self._tokens // each))]
            yield batch
            start += len(batch)

    def states(self, reference: ReferencePass, batch: list[Suffix]) -> list[Tensor]:
        """Compute the states of suffixes, with half as many at a time from now on where memory runs out.

        Raises:
            UserError: a single one does not fit into memory.
        """
        try:
            with self.precision:
                return reference.suffixes(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, where the error's frames no longer keep the tensors of the failed pass.
        if len(batch) == 1:
            what = f"out of memory on {self.device} with one substitution"
            raise UserError(what, remedy="choose shorter regions or a smaller --flank")
        half = self._sequences = len(batch) // 2
        return [*self.states(reference, batch[:half]), *self.states(reference, batch[half:])]


class StrandReading:
    """A record read on one strand.

    Args:
        reader: how.
        ids_L: tokens of the context before the record, and of the record.
        first: position of the record's first base.
        with_last: whether the last base is read.

    Attributes:
        tokens_L: tokens of the record.
        before_D: state after the base before the record; None if there is none, or nothing is read.
        hidden_LD: states after each base, the last one only if it is read.
    """

    def __init__(self, reader: Substitutions, ids_L: Tensor, first: int, *, with_last: bool) -> None:
        self._reader, self._first = reader, first
        self.tokens_L = ids_L[first:]
        self._ids_L = ids_L if with_last else ids_L[:-1]
        self.before_D: Tensor | None = None
        self.hidden_LD = torch.zeros(0, reader.model.config.d_model, device=reader.device)
        if len(self._ids_L):
            kept = max(0, first - 1)
            with reader.precision:
                self._reference = ReferencePass(reader.model, self._ids_L[None], kept)
            states_D = self._reference.hidden_BLD[0]
            self.hidden_LD = states_D[first - kept :]
            self.before_D = states_D[0] if first else None

    def __iter__(self) -> Iterator[Substituted]:
        """Yield the substitutions in batches; none of N, nor of a last base that is not read."""
        for batch in self._reader.batches(list(self._suffixes())):
            states = self._reader.states(self._reference, batch)
            positions = [suffix.start - self._first for suffix in batch]
            bases = [int(suffix.ids[0]) - BASES[0] for suffix in batch]
            yield Substituted(positions, bases, states)

    def _suffixes(self) -> Iterator[Suffix]:
        for position, token in enumerate(self._ids_L.tolist()):
            if position < self._first or not BASES[0] <= token < BASES[1]:
                continue
            for other in range(*BASES):
                if other != token:
                    changed = self._ids_L[position:].clone()
                    changed[0] = other
                    yield Suffix(0, position, changed)
