"""Perplexity of a model by the length of its context.

B batch, L predictions in a window, W = L + 1 bases in it, N tiles.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hyenacli.console import log
from hyenacli.errors import UsageError, UserError
from hyenacli.inference.batching import BatchItem, Engine, make_budget
from hyenacli.inference.intervals import Interval, named_contigs, split_by_intervals
from hyenacli.inference.sampling import fixed_windows
from hyenacli.readers.genome import Contig, Tokens, count_bases
from hyenadna import HyenaConfig, HyenaDNA
from hyenadna.engine.inference import token_log_probs
from hyenadna.engine.training import IGNORED, next_bases
from hyenadna.tokenizer import PAD

_FIRST, _STEP = 64, 4
_Sum = tuple[float, int, int]
_WindowEngine = Engine[None, _Sum]


@dataclass(frozen=True)
class PerplexityAtLength:
    """Loss of a model with contexts of one length.

    Attributes:
        length: bases a window predicts; the n-th of them is predicted from the n bases before it.
        windows: how many were read; the last one of a tile may predict fewer.
        bases: predictions that count: those of A, C, G and T.
        loss: mean -log p of them, in nats.
        seconds: it took.
    """

    length: int
    windows: int
    bases: int
    loss: float
    seconds: float

    @property
    def bits_per_base(self) -> float:
        """Loss in bits."""
        return self.loss / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(loss): 4 for uniform probabilities."""
        return math.exp(self.loss)


def evaluate(
    model: HyenaDNA,
    contigs: Sequence[Contig],
    intervals: Sequence[Interval],
    lengths: Sequence[int] | None = None,
    *,
    max_windows: int = 128,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[PerplexityAtLength]:
    """Compute the loss on the same bases with contexts of several lengths, the shortest first.

    The intervals are tiled as by `windows.fixed_windows`, with tiles of L + 1 bases, L the longest length.
    Every length predicts bases 1..L of every tile, and none predicts base 0: window k of length c, from 0,
    holds bases k c..(k + 1) c, both included, and predicts all but its first. Where c does not divide L, the
    last window of a tile ends with it and predicts L mod c bases. The loss is that of pretraining: in
    float32, over all vocabulary rows, N left out.

    A length for which no interval has a whole tile that is not mostly N is left out, with a warning.

    Args:
        model: in eval mode, on the device to use.
        contigs: the genomes.
        intervals: which stretches of them are read.
        lengths: in bases; None for `default_lengths` of what the model takes.
        max_windows: most tiles.
        batch_size: windows per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.
        on_progress: called as windows are done with the tokens read so far, and those there are in all.

    Raises:
        UsageError: a length is below 1 or beyond the model's context, or what a soft prompt leaves of it.
        UserError: nothing is long enough for the shortest length, values are not
            finite, or one window does not fit into memory.
    """
    longest = min(model.config.context, model.longest_input)
    requested = sorted(set(default_lengths(longest) if lengths is None else lengths))
    _check_lengths(requested, longest, model)
    kept, tiles_NW = _tiles(contigs, intervals, requested, max_windows)
    if left_out := requested[len(kept) :]:
        log.warning("no stretch fills a window of %s bases: left out", ", ".join(f"{c:,}" for c in left_out))
    device = next(model.parameters()).device
    engine: _WindowEngine = Engine(
        lambda ids_BW, _mask_BW, batch: _sums(_nats(model, ids_BW, precision or nullcontext()), batch),
        budget=make_budget(batch_size, model.config.d_model, 0, device),
        device=device,
    )
    return _losses(engine, tiles_NW, kept, on_progress or (lambda _done, _total: None))


def default_lengths(context: int) -> list[int]:
    """Return 64, 256, ... below the context, and the context itself.

    >>> default_lengths(1024), default_lengths(32_768), default_lengths(50)
    ([64, 256, 1024], [64, 256, 1024, 4096, 16384, 32768], [50])
    """
    lengths = []
    length = _FIRST
    while length < context:
        lengths.append(length)
        length *= _STEP
    return [*lengths, context]


def parse_lengths(text: str | None) -> list[int] | None:
    """Parse comma-separated lengths; return them from the shortest, or None.

    Raises:
        UsageError: not whole numbers from 1 on.

    >>> parse_lengths("4096, 1024")
    [1024, 4096]
    """
    if text is None:
        return None
    words = [word.strip() for word in str(text).split(",")]
    for word in words:
        if not (word.isascii() and word.isdecimal() and int(word)):
            raise UsageError(
                f"'{word}' is not a length",
                at="--lengths",
                remedy="give whole numbers from 1 on, as 1024,4096",
            )
    return sorted(set(map(int, words)))


def choose_intervals(
    contigs: Sequence[Contig],
    *,
    names: str | None = None,
    bed: Path | None = None,
    split: str | None = None,
) -> list[Interval]:
    """Return the intervals to evaluate on: whole contigs, or the rows of a BED.

    Args:
        contigs: the genomes.
        names: of contigs, comma-separated, a name in several files meaning all of them; None for all.
        bed: intervals, split in column 4.
        split: which of them: train, valid or test; None for valid.

    Raises:
        UserError: a contig that no file has, no interval of the split, or as `split_by_intervals`.
        UsageError: both names and intervals, or a split that is none or has no intervals to choose from.
    """
    if bed is not None:
        if names is not None:
            raise UsageError("--intervals already says what is read", remedy="leave --contigs out")
        return _of_split(contigs, bed, split or "valid")
    if split is not None:
        raise UsageError("--split chooses rows of a BED", remedy="give it with --intervals")
    every = [contig.name for contig in contigs]
    requested = every if names is None else [name.strip() for name in str(names).split(",")]
    chosen = named_contigs(contigs, requested, "to evaluate on")
    return [Interval(i, 0, len(contig)) for i, contig in enumerate(contigs) if contig.name in chosen]


def _of_split(contigs: Sequence[Contig], bed: Path, split: str) -> list[Interval]:
    splits = split_by_intervals(contigs, bed)
    chosen: list[Interval] = getattr(splits, split)
    if not chosen:
        splits_with_rows = " or ".join(name for name, bases in splits.bases().items() if bases)
        remedy = f"give --split {splits_with_rows}" if splits_with_rows else "give it rows"
        raise UserError(f"no interval is for {split}", at=bed, remedy=remedy)
    return chosen


def warn_of_labels(config: HyenaConfig, name: object) -> None:
    """Warn where a model was trained for labels and may predict bases less well."""
    # Beside a prediction head, a tied LM head is just the embedding.
    task = config.demonstrations or config.head
    if task is not None and config.tied_head:
        log.warning(
            "%s is fine-tuned for labels (%s): how likely it finds bases is not what it was pretrained for; "
            "use the model it was fine-tuned from",
            name,
            task.task,
        )


def _check_lengths(lengths: Sequence[int], longest: int, model: HyenaDNA) -> None:
    context = model.config.context
    room = model.backbone.describe_room() if longest < context else f"context of {context:,} bases"
    for length in lengths:
        if length < 1:
            raise UsageError(f"a length of {length} predicts nothing", remedy="give lengths from 1 on")
        if length > longest:
            raise UsageError(
                f"{length:,} is beyond the model's {room}",
                at="--lengths",
                remedy="choose shorter lengths, or a model with a longer context",
            )


def _tiles(
    contigs: Sequence[Contig], intervals: Sequence[Interval], lengths: Sequence[int], count: int
) -> tuple[Sequence[int], Tokens]:
    """Return the lengths that have whole tiles, and the tiles of the longest of them (N, W)."""
    for number in range(len(lengths), 0, -1):
        tiles_NW = fixed_windows(contigs, intervals, lengths[number - 1] + 1, count)
        if len(tiles_NW) and tiles_NW[0, -1] != PAD and count_bases(tiles_NW[:, 1:]):
            return lengths[:number], tiles_NW
    width, longest = lengths[0] + 1, max(map(len, intervals), default=0)
    at = ", ".join(dict.fromkeys(str(contig.source) for contig in contigs))
    if longest >= width:
        raise UserError(
            f"every window of {width:,} bases is mostly N", at=at, remedy="choose other stretches"
        )
    raise UserError(
        f"the longest stretch has {longest:,} bases, a window of the shortest length {width:,}",
        at=at,
        remedy="add sequence, or shorter --lengths",
    )


def _nats(model: HyenaDNA, ids_BW: Tensor, precision: AbstractContextManager[Any]) -> tuple[Tensor, Tensor]:
    """Return the sum of -log p over the bases of each window (B,), and their number (B,)."""
    targets_BL = next_bases(ids_BW)
    with precision:
        log_p_BL = token_log_probs(model, ids_BW[:, :-1], targets_BL, among=None)
    return -log_p_BL.sum(1), (targets_BL != IGNORED).sum(1)


def _sums(output: tuple[Tensor, Tensor], batch: Sequence[BatchItem[None]]) -> list[_Sum]:
    """Return nats, bases and tokens of every window of a batch."""
    nats_B, bases_B = (values_B.tolist() for values_B in output)
    return list(zip(nats_B, bases_B, (len(piece.ids) - 1 for piece in batch), strict=True))


def _losses(
    engine: _WindowEngine, tiles_NW: Tokens, lengths: Sequence[int], on_progress: Callable[[int, int], None]
) -> Iterator[PerplexityAtLength]:
    done, total = 0, len(lengths) * len(tiles_NW) * (tiles_NW.shape[1] - 1)
    for length in lengths:
        start, nats, bases, windows = time.perf_counter(), 0.0, 0, 0
        for window_nats, window_bases, window_tokens in engine.run(_windows(tiles_NW, length)):
            nats, bases, windows = nats + window_nats, bases + window_bases, windows + 1
            done += window_tokens
            on_progress(done, total)
        if not math.isfinite(nats):
            raise UserError(
                f"the model gives values that are not finite in windows of {length:,} bases",
                remedy="use --dtype float32, or check the model with `hyena models verify`",
            )
        yield PerplexityAtLength(length, windows, bases, nats / bases, time.perf_counter() - start)


def _windows(tiles_NW: Tokens, length: int) -> Iterator[BatchItem[None]]:
    """Yield the windows of every tile, each from the last base of the one before it."""
    for tile_W in tiles_NW:
        for start in range(0, len(tile_W) - 1, length):
            yield BatchItem(tile_W[start : start + length + 1], None)
