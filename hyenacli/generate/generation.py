"""New sequences: prompts of any lengths are continued together, and drawn again where they do not fit.

A choice so close that rounding could decide it is made anew from one pass in double precision over the
sequence alone, so that a sample does not depend on the batch that it was computed in.

U prompt of a batch, P position of a prompt, B sequence, L new base, V vocabulary row.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli.devices import free_memory, is_out_of_memory
from hyenacli.errors import UserError, check_range
from hyenacli.generate.constraints import Automaton, Constraints, RepeatGuard
from hyenacli.generate.sampling import SamplingRule, draws
from hyenacli.readers.records import OK, TOO_LONG, SequenceRecord
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine.decoding import Decoder
from hyenadna.engine.inference import BASES
from hyenadna.tokenizer import PAD, A

LENGTH, STOP, REJECTED = "LENGTH", "STOP", "REJECTED"
NO_SOLUTION = "NO_SOLUTION"
_LETTERS = np.frombuffer(b"ACGT", np.uint8)
_TOKENIZER = Tokenizer()
# Batches' worth of sequences sorted by the length of their prompts at a time.
_LOOKAHEAD = 4
_MAX_ROWS_ON_CPU, _MAX_ROWS = 64, 512
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Generated:
    """One new sequence.

    Attributes:
        prompt: the prompt's record.
        sample: number of the sequence for its prompt, from 1.
        record: the new bases; its status is OK, REJECTED, NO_SOLUTION, TOO_LONG or the prompt's.
        status: LENGTH or STOP, or why there are no bases.
        log_p: of each new base in nats, by the model, among A, C, G and T, at temperature 1.
        tries: times it was drawn.
    """

    prompt: SequenceRecord
    sample: int
    record: SequenceRecord
    status: str
    log_p: tuple[float, ...] = ()
    tries: int = 0

    @property
    def n_bases(self) -> int:
        """New bases."""
        return len(self.record)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """What is drawn, and how.

    Attributes:
        constraints: on the new bases.
        rule: by which a base is chosen.
        samples: sequences for each prompt.
        seed: of the draws.
        tries: times that a sequence is drawn before it is REJECTED.
        slide: drop the oldest half of a full context, rather than refuse.

    Raises:
        UsageError: a number is out of its range.
    """

    constraints: Constraints
    rule: SamplingRule = field(default_factory=SamplingRule)
    samples: int = 1
    seed: int = 0
    tries: int = 100
    slide: bool = False

    def __post_init__(self) -> None:
        check_range("--samples", self.samples, 1)
        check_range("--seed", self.seed, 0)
        check_range("--tries", self.tries, 1)


@dataclass(slots=True)
class _Request:
    """A sequence to draw."""

    prompt: SequenceRecord
    sample: int
    state: int
    attempt: int = 0
    answer: Generated | None = None

    @property
    def bases(self) -> bytes:
        return self.prompt.bases


def generate(
    model: HyenaDNA,
    prompts: Iterable[SequenceRecord],
    options: GenerationOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[Generated]:
    """Continue prompts, with as many sequences each as the options say, in the order of the prompts.

    N in a prompt is read as N. Each sequence is a function of the model, the options, its prompt's name and
    bases, and its number: in float32, neither the batch nor the order of the prompts changes it.

    Args:
        model: in eval mode, on the device to use.
        prompts: their bases, in reading direction; those whose status is not OK pass through.
        options: what is drawn, and how.
        batch_size: sequences continued together; None derives it from the free memory.
        precision: entered around the model, such as an autocast; in other precisions than float32, samples
            depend on the batch.

    Raises:
        UsageError: no sequence meets the constraints, or the batch size is below 1.
        UserError: the model gives values that are not finite, or one sequence does not fit into memory.
    """
    check_range("--batch-size", batch_size, 1)
    run = _Run(model, options, precision)
    chunk: list[_Request] = []
    size = 1
    for prompt in prompts:
        size = max(size, run.rows(batch_size, len(prompt.bases)))
        chunk += run.requests(prompt)
        if len(chunk) >= _LOOKAHEAD * size:
            yield from run.answer(chunk, batch_size)
            chunk = []
    yield from run.answer(chunk, batch_size)


class _Run:
    """A model at work with options."""

    def __init__(
        self, model: HyenaDNA, options: GenerationOptions, precision: AbstractContextManager[Any] | None
    ) -> None:
        self._model, self._options = model, options
        self._precision = precision or nullcontext()
        self._device = next(model.parameters()).device
        self._automaton = Automaton(options.constraints)
        # in a lower precision, rounding decides so often that every base would be computed anew
        self._exact = None if isinstance(precision, torch.autocast) else _Exact(model)

    def rows(self, batch_size: int | None, prompt: int) -> int:
        """Return how many sequences are continued together, given the length of a prompt."""
        if batch_size is not None:
            return batch_size
        config, length = self._model.config, self._options.constraints.length
        numbers = config.d_model * (8 * (prompt + length) + (config.n_layer + 2) * length)
        limit = _MAX_ROWS_ON_CPU if self._device.type == "cpu" else _MAX_ROWS
        return max(1, min(limit, free_memory(self._device) // 2 // (4 * numbers)))

    def requests(self, prompt: SequenceRecord) -> list[_Request]:
        """Return the sequences to draw for a prompt; those that cannot be drawn are answered."""
        status, problem = prompt.status, prompt.problem
        state = 0
        if status == OK:
            state = self._automaton.start(prompt.bases)
            bases = len(prompt.bases) + self._options.constraints.length
            room = self._model.longest_input + 1  # the last base is drawn, and not read
            if bases > room and not self._options.slide:
                status, problem = TOO_LONG, f"prompt and new bases are {bases:,}, of {room:,} at most"
            elif not self._automaton.allowed(0)[state].any():
                status, problem = NO_SOLUTION, "no sequence after this prompt meets the constraints"
        requests = [_Request(prompt, number + 1, state) for number in range(self._options.samples)]
        for request in requests if status != OK else ():
            record = replace(prompt, start=0, end=0, bases=b"", left=0, status=status, problem=problem)
            request.answer = Generated(prompt, request.sample, record, status)
        return requests

    def answer(self, chunk: Sequence[_Request], batch_size: int | None) -> Iterator[Generated]:
        """Draw all sequences of a chunk, and yield them in order."""
        while waiting := [request for request in chunk if request.answer is None]:
            # Longest first: if memory is short, that shows at once.
            waiting.sort(key=lambda request: -len(request.bases))
            while waiting:
                count = self.rows(batch_size, len(waiting[0].bases))
                batch = waiting[:count]
                if self._slides(batch[0]):
                    # the context is full for all at once
                    batch = [r for r in batch if len(r.bases) == len(batch[0].bases)]
                del waiting[: len(batch)]
                self._draw(batch)
        for request in chunk:
            assert request.answer is not None  # noqa: S101  (internal invariant)
            yield request.answer

    def _slides(self, request: _Request) -> bool:
        length = self._options.constraints.length
        return len(request.bases) + length - 1 > self._model.longest_input

    def _draw(self, batch: Sequence[_Request]) -> None:
        try:
            with torch.inference_mode(), self._precision:
                _Batch(self._model, self._options, self._automaton, self._exact, batch).run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        # Outside the handler, where the error's frames no longer keep the tensors of the failed pass.
        if len(batch) == 1:
            length = len(batch[0].bases) + self._options.constraints.length
            raise UserError(
                f"out of memory on {self._device} with one sequence of {length:,} tokens",
                remedy="shorten it with --prompt-length or --length, or use a device with more memory",
            )
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            self._draw(part)


class _Exact:
    """Log p of the next base in double precision, from one pass over a sequence alone.

    Args:
        model: the model; it is copied when it is first needed.
    """

    def __init__(self, model: HyenaDNA) -> None:
        self._source = model
        self._model: HyenaDNA | None = None

    def log_p(self, ids_L: NDArray[np.uint8]) -> Floats:
        """Compute log p of A, C, G and T (4,) after tokens."""
        if self._model is None:
            double = copy.deepcopy(self._source)
            # MPS has no double precision
            self._model = (double.cpu() if _is_mps(double) else double).double()
        device = next(self._model.parameters()).device
        ids_1L = torch.from_numpy(ids_L.astype(np.int64))[None].to(device)
        hidden_1D = self._model.hidden(ids_1L)[:, -1]
        logits_14 = self._model.lm_logits(hidden_1D)[:, slice(*BASES)]
        log_p_4: Floats = logits_14.log_softmax(-1)[0].cpu().numpy()
        return log_p_4


def _is_mps(model: HyenaDNA) -> bool:
    return next(model.parameters()).device.type == "mps"


class _Batch:
    """Sequences that are written base by base, together.

    Attributes:
        new_BL: the bases so far.
        alive_B: which are not complete.
    """

    def __init__(
        self,
        model: HyenaDNA,
        options: GenerationOptions,
        automaton: Automaton,
        exact: _Exact | None,
        batch: Sequence[_Request],
    ) -> None:
        self._model, self._options, self._automaton, self._exact = model, options, automaton, exact
        self._batch, self._device = batch, next(model.parameters()).device
        constraints = options.constraints
        self._length, n = constraints.length, len(batch)
        self._draws_BL = np.stack(
            [draws(options.seed, r.prompt.id, r.bases, r.sample, r.attempt, self._length) for r in batch]
        )
        self._new_BL = np.zeros((n, self._length), np.int64)
        self._log_p_BL = np.zeros((n, self._length))
        self._states_B = np.array([request.state for request in batch])
        self._alive_B = np.ones(n, np.bool_)
        size = constraints.no_repeat
        self._guards = [RepeatGuard(size, request.bases) for request in batch] if size else []
        # Rows of the decoder: the sequences that it continues.
        self._rows = np.arange(n)

    def run(self) -> None:
        """Write all sequences; each request gets an answer, or another attempt."""
        decoder = self._read(0)
        for step in range(self._length):
            self._step(step, decoder.logits_BV[:, slice(*BASES)].double().cpu().numpy())
            if step + 1 == self._length or not self._alive_B.any():
                break
            if self._room == 0:
                decoder = self._read(step + 1)
                continue
            alive_R = self._alive_B[self._rows]
            if 2 * alive_R.sum() <= len(alive_R):
                decoder.select(torch.from_numpy(np.flatnonzero(alive_R)).to(self._device))
                self._rows = self._rows[alive_R]
            ids_R = torch.from_numpy(self._new_BL[self._rows, step] + A)
            decoder.append(ids_R.to(self._device))
            self._room -= 1

    def _read(self, step: int) -> Decoder:
        """Read what is in the context of each sequence before new base `step`."""
        self._rows = np.flatnonzero(self._alive_B)
        longest, left = self._model.longest_input, self._length - step - 1
        self._first: dict[int, int] = {}
        texts: dict[bytes, int] = {}
        of_row = []
        for row in self._rows.tolist():
            text = self._text(row, step)
            # what does not fit is dropped from the left, but never more than half of a context
            kept = max(longest - left, longest // 2)
            self._first[row] = max(0, len(text) - kept) if len(text) + left > longest else 0
            of_row.append(texts.setdefault(text[self._first[row] :], len(texts)))
        lengths = [len(text) for text in texts]
        ids_UP = np.full((len(texts), max(lengths)), PAD, np.uint8)
        for ids_P, text in zip(ids_UP, texts, strict=True):
            ids_P[: len(text)] = _TOKENIZER.encode_array(text)
        self._room = min(left, longest - max(lengths))
        decoder = Decoder(
            self._model,
            torch.from_numpy(ids_UP.astype(np.int64)).to(self._device),
            self._room,
            torch.tensor(lengths, device=self._device),
        )
        if of_row != list(range(len(texts))):
            decoder.select(torch.tensor(of_row, device=self._device))
        return decoder

    def _text(self, row: int, step: int) -> bytes:
        return self._batch[row].bases + _LETTERS[self._new_BL[row, :step]].tobytes()

    def _step(self, step: int, logits_R4: Floats) -> None:
        """Choose the next base of every sequence that is not complete."""
        alive_R = self._alive_B[self._rows]
        rows = self._rows[alive_R]
        log_p_R4 = _log_softmax(logits_R4[alive_R], self._batch[rows[0]].prompt)
        allowed_R4 = self._automaton.allowed(step)[self._states_B[rows]]
        if self._guards:
            allowed_R4 = allowed_R4 & np.array([self._guards[row].allowed() for row in rows])
        possible_R = allowed_R4.any(axis=1)
        for row in rows[~possible_R].tolist():
            self._try_again(row)
        rows, log_p_R4, allowed_R4 = rows[possible_R], log_p_R4[possible_R], allowed_R4[possible_R]
        if not len(rows):
            return
        rule, draws_R = self._options.rule, self._draws_BL[rows, step]
        chosen_R, margin_R = rule.choose(log_p_R4, allowed_R4, draws_R)
        for i in np.flatnonzero(margin_R < rule.tolerance) if self._exact else ():
            row = int(rows[i])
            text = self._text(row, step)[self._first[row] :]
            log_p_R4[i] = self._exact.log_p(_TOKENIZER.encode_array(text))  # type: ignore[union-attr]
            one = slice(i, i + 1)
            chosen_R[one], _ = rule.choose(log_p_R4[one], allowed_R4[one], draws_R[one])
        self._new_BL[rows, step] = chosen_R
        self._log_p_BL[rows, step] = log_p_R4[np.arange(len(rows)), chosen_R]
        self._states_B[rows] = self._automaton.move(self._states_B[rows], chosen_R)
        for row, base in zip(rows, chosen_R, strict=True) if self._guards else ():
            self._guards[row].push(int(base))
        stopped_R = self._options.constraints.stopped(self._new_BL[rows, : step + 1])
        complete_R = stopped_R | (step + 1 == self._length)
        for row, stopped in zip(rows[complete_R].tolist(), stopped_R[complete_R], strict=True):
            self._complete(row, step + 1, STOP if stopped else LENGTH)

    def _complete(self, row: int, length: int, status: str) -> None:
        new_L = self._new_BL[row, :length]
        if not self._options.constraints.fits(new_L):
            self._try_again(row)
            return
        self._alive_B[row] = False
        request = self._batch[row]
        record = SequenceRecord.of_sequence(request.prompt.id, _LETTERS[new_L].tobytes())
        log_p = tuple(self._log_p_BL[row, :length].tolist())
        request.answer = Generated(request.prompt, request.sample, record, status, log_p, request.attempt + 1)

    def _try_again(self, row: int) -> None:
        """End a sequence that does not fit, and have it drawn again, or reject it."""
        self._alive_B[row] = False
        request = self._batch[row]
        request.attempt += 1
        if request.attempt == self._options.tries or self._options.rule.temperature == 0:
            problem = f"no sequence of {request.attempt:,} fits --gc and --no-repeat"
            record = SequenceRecord.of_sequence(request.prompt.id, b"", REJECTED, problem=problem)
            request.answer = Generated(
                request.prompt, request.sample, record, REJECTED, tries=request.attempt
            )


def _log_softmax(logits_R4: Floats, record: SequenceRecord) -> Floats:
    """Compute log p, and check that it is finite."""
    shifted_R4 = logits_R4 - logits_R4.max(axis=1, keepdims=True)
    log_p_R4: Floats = shifted_R4 - np.log(np.exp(shifted_R4).sum(axis=1, keepdims=True))
    if not math.isfinite(float(log_p_R4.sum())):
        raise UserError(
            "the model gives values that are not finite",
            at=record.id,
            remedy="use --dtype float32, or check the model with `hyena models verify`",
        )
    return log_p_R4
