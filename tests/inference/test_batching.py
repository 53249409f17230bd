from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyenacli.devices import free_memory
from hyenacli.errors import UsageError, UserError
from hyenacli.inference import batching
from hyenacli.inference.batching import BatchItem, Budget, Engine, make_budget, parse_batch_size

CPU = torch.device("cpu")


class Recorder:
    """A "model" that answers with the tokens it was shown, and remembers the shape of every batch."""

    def __init__(self, memory: int = 1 << 30):
        self.shapes: list[tuple[int, ...]] = []
        self.memory = memory

    def __call__(
        self, ids_BL: Tensor, mask_BL: Tensor, batch: Sequence[BatchItem[int]]
    ) -> list[tuple[int, list[int]]]:
        if ids_BL.numel() > self.memory:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")
        assert ids_BL.dtype == torch.int64
        assert not torch.is_grad_enabled()
        assert (ids_BL[~mask_BL] == 4).all()
        self.shapes.append(tuple(ids_BL.shape))
        rows = zip(ids_BL, mask_BL, batch, strict=True)
        return [(item.metadata, row[mask].tolist()) for row, mask, item in rows]


def pieces_of(lengths: Sequence[int]) -> list[BatchItem[int]]:
    return [BatchItem(np.full(n, 7 + i % 5, dtype=np.uint8), metadata=i) for i, n in enumerate(lengths)]


def engine_with(recorder: Recorder, *, tokens: int = 1 << 40, sequences: int = 1 << 40) -> Engine:
    return Engine(recorder, budget=Budget(tokens, sequences), device=CPU)


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 100), st.integers(1, 6))
def test_answers_keep_the_order_and_batches_the_budget(
    lengths: list[int], tokens: int, sequences: int
) -> None:
    recorder = Recorder()
    pieces = pieces_of(lengths)
    answers = list(engine_with(recorder, tokens=tokens, sequences=sequences).run(pieces))
    assert answers == [(piece.metadata, piece.ids.tolist()) for piece in pieces]
    for rows, width in recorder.shapes:
        assert rows == 1 or (rows <= sequences and rows * width <= tokens)


def test_padding_is_small_because_pieces_are_sorted() -> None:
    recorder = Recorder()
    lengths = [10, 100] * 40
    list(engine_with(recorder, tokens=1000).run(pieces_of(lengths)))
    assert sum(rows * width for rows, width in recorder.shapes) == sum(lengths)


def test_pieces_are_pulled_no_further_than_the_lookahead() -> None:
    pulled = 0

    def endless() -> Iterator[BatchItem[int]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield from pieces_of([5])

    answers = engine_with(Recorder(), tokens=20).run(endless())
    for _ in range(1000):
        next(answers)
    assert pulled <= 1000 + 8 * 20 / 5


def test_running_out_of_memory_halves_the_batch_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(memory=35)
    pieces = pieces_of([10] * 100)
    said: list[tuple[object, ...]] = []
    monkeypatch.setattr(batching.log, "warning", lambda *about: said.append(about))
    answers = list(engine_with(recorder, tokens=160).run(pieces))
    assert answers == [(piece.metadata, piece.ids.tolist()) for piece in pieces]
    assert max(rows for rows, _ in recorder.shapes) == 2
    # It learns: of 16, both halves and all quarters fail, and nothing larger than 2 is tried afterwards.
    assert [about[1:] for about in said] == [(16, 10), (8, 10), (4, 10), (4, 10), (8, 10), (4, 10), (4, 10)]


def test_one_sequence_too_large_names_the_remedy() -> None:
    with pytest.raises(UserError, match=r"out of memory on cpu with one sequence of 40 tokens; .*--window"):
        list(engine_with(Recorder(memory=35)).run(pieces_of([40, 3])))


def test_other_errors_are_bugs() -> None:
    def broken(ids_BL: Tensor, mask_BL: Tensor, batch: Sequence[BatchItem[int]]) -> list[int]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(Engine(broken, budget=Budget(10, 10), device=CPU).run(pieces_of([1])))


def test_the_automatic_budget_follows_memory_and_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "free_memory", lambda device: 1 << 30)
    assert make_budget(None, 128, 1, CPU).tokens == 32_768
    assert make_budget(None, 128, 1, torch.device("cuda")).tokens == (1 << 29) // (4 * 128 * 7)
    monkeypatch.setattr(batching, "free_memory", lambda device: 0)
    assert make_budget(None, 128, 1, CPU).tokens == 1
    assert make_budget(3, 128, 1, CPU).sequences == 3


def test_free_memory_is_a_number_of_bytes() -> None:
    assert 1 << 20 < free_memory(CPU) < 1 << 50


def test_batch_sizes() -> None:
    assert parse_batch_size("auto") is None
    assert parse_batch_size("12") == 12
    for text in ("0", "-1", "many", "1.5", ""):
        with pytest.raises(UsageError, match="--batch-size: unknown batch size"):
            parse_batch_size(text)
