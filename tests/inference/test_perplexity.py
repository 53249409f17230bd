"""Loss by length of context: the same bases for every length, by the plain model's log-probabilities."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenacli.errors import UsageError, UserError
from hyenacli.inference.intervals import Interval
from hyenacli.inference.perplexity import (
    PerplexityAtLength,
    choose_intervals,
    evaluate,
    parse_lengths,
    warn_of_labels,
)
from hyenacli.inference.sampling import WindowSampler
from hyenacli.pretrain.language_model import NextNucleotide
from hyenacli.readers.genome import SOFT_MASKED, Codes, Contig
from hyenadna import HeadConfig, HyenaConfig, HyenaDNA, SoftPromptConfig, add_soft_prompt
from hyenadna.tokenizer import A, N, T
from tests.builders import write_bed
from tests.toys import tiny_model

BASES = np.random.default_rng(0).integers(A, T + 1, 300).astype(np.uint8)
BASES[10:14] = N
BASES[60:70] = N


def contig(codes: Codes, name: str = "c", source: str = "g.fa") -> Contig:
    return Contig(name, Path(source), codes, int((codes != N).sum()))


GENOME = [contig(BASES)]
WHOLE = [Interval(0, 0, 300)]


@pytest.fixture(scope="module")
def model() -> HyenaDNA:
    return tiny_model(context=48)


def brute_force(model: HyenaDNA, tiles: list[range], length: int) -> tuple[float, int]:
    """Mean loss and number of bases, by one plain pass for every base."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for tile in tiles:
            for at in tile[1:]:
                if BASES[at] == N:
                    continue
                start = tile[0] + (at - tile[0] - 1) // length * length
                read = torch.from_numpy(BASES[start:at].astype(np.int64))[None]
                total -= float(model.plain(read).logits[0, -1].log_softmax(-1)[int(BASES[at])])
                count += 1
    return total / count, count


def test_every_length_predicts_the_same_bases_in_batches_of_any_size(model: HyenaDNA) -> None:
    tiles = [range(start, start + 41) for start in range(0, 287, 41)]
    expected = {length: brute_force(model, tiles, length) for length in (1, 7, 8, 40)}
    for batch_size in (None, 1, 5):
        found = list(evaluate(model, GENOME, WHOLE, [40, 1, 8, 7, 8], batch_size=batch_size))
        assert [(loss.length, loss.windows) for loss in found] == [(1, 280), (7, 42), (8, 35), (40, 7)]
        for loss in found:
            nats, bases = expected[loss.length]
            assert loss.bases == bases == 280 - 14
            assert loss.loss == pytest.approx(nats, abs=1e-5)


def test_the_loss_is_that_of_pretraining(model: HyenaDNA) -> None:
    (loss,) = evaluate(model, GENOME, WHOLE, [40])
    windows_NW = np.stack([BASES[start : start + 41] for start in range(0, 287, 41)])
    sampler = WindowSampler(GENOME, WHOLE, 0, rc_augment=False)
    task = NextNucleotide(sampler, windows_NW, batch_size=3, device=torch.device("cpu"))
    with torch.inference_mode():
        wanted = task.evaluate(model)
    assert (loss.loss, loss.bits_per_base, loss.perplexity) == pytest.approx(tuple(wanted.values()), rel=1e-6)


def test_windows_are_spread_lie_in_the_intervals_and_ignore_case(model: HyenaDNA) -> None:
    intervals = [Interval(0, 100, 145), Interval(0, 150, 191), Interval(0, 200, 300)]
    soft = [contig(BASES | SOFT_MASKED)]
    found = list(evaluate(model, soft, intervals, [8, 40], max_windows=2))
    tiles = [range(100, 141), range(241, 282)]
    for loss in found:
        nats, bases = brute_force(model, tiles, loss.length)
        assert (loss.bases, loss.loss) == (bases, pytest.approx(nats, abs=1e-5))


def test_lengths_beyond_every_stretch_are_left_out(
    model: HyenaDNA, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyenacli.console.log.propagate", True)
    found = list(evaluate(model, GENOME, [Interval(0, 100, 125), Interval(0, 200, 220)], [8, 24, 40, 48]))
    assert [(loss.length, loss.bases) for loss in found] == [(8, 24), (24, 24)]
    assert "no stretch fills a window of 40, 48 bases: left out" in caplog.text


def test_default_lengths_end_with_the_context(model: HyenaDNA) -> None:
    assert [loss.length for loss in evaluate(model, GENOME, WHOLE)] == [48]
    assert [loss.length for loss in evaluate(tiny_model(context=100), GENOME, WHOLE)] == [64, 100]


def test_a_soft_prompt_is_context_of_every_window(model: HyenaDNA) -> None:
    prompted = copy.deepcopy(model)
    add_soft_prompt(prompted, SoftPromptConfig(10), base="base")
    torch.nn.init.normal_(prompted.backbone.prompt.vectors, generator=torch.Generator().manual_seed(0))
    tiles = [range(start, start + 41) for start in range(0, 287, 41)]
    found = list(evaluate(prompted, GENOME, WHOLE))
    assert [loss.length for loss in found] == [40]
    nats, bases = brute_force(prompted, tiles, 40)
    assert (found[0].loss, found[0].bases) == (pytest.approx(nats, abs=1e-5), bases)
    assert nats != pytest.approx(brute_force(model, tiles, 40)[0], abs=1e-4)
    with pytest.raises(UsageError, match="41 is beyond the model's 40 after a soft prompt of 10 in 50"):
        evaluate(prompted, GENOME, WHOLE, [41])


def test_progress_counts_tokens_to_the_end(model: HyenaDNA) -> None:
    told: list[tuple[int, int]] = []
    list(evaluate(model, GENOME, WHOLE, [7, 40], on_progress=lambda done, total: told.append((done, total))))
    assert told[0][0] == 7
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (560, 560)


def test_units() -> None:
    loss = PerplexityAtLength(4, 1, 3, math.log(4), 1.0)
    assert (loss.bits_per_base, loss.perplexity) == pytest.approx((2, 4))


@pytest.mark.parametrize(
    ("lengths", "interval", "said"),
    [
        ([8, 49], (0, 300), "49 is beyond the model's context of 48 bases"),
        ([0], (0, 300), "a length of 0 predicts nothing"),
        ([24, 40], (100, 124), "g.fa: the longest stretch has 24 bases, a window of the shortest length 25"),
        ([8], (60, 70), "g.fa: every window of 9 bases is mostly N"),
        ([1], (59, 61), "g.fa: every window of 2 bases is mostly N"),
    ],
)
def test_what_cannot_be_evaluated(
    model: HyenaDNA, lengths: list[int], interval: tuple[int, int], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        evaluate(model, GENOME, [Interval(0, *interval)], lengths)


def test_a_model_for_labels_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    head = HeadConfig("binary", 2)
    tied = HyenaConfig(8, 1, 16, 50, head=head)
    for config in (replace(tied, tied_head=False), replace(tied, head=None)):
        warn_of_labels(config, "run")
    assert not caplog.text
    with caplog.at_level("WARNING", logger="hyena"):
        warn_of_labels(tied, "run")
    assert "run is fine-tuned for labels (binary)" in caplog.text


def test_a_model_that_gives_nonsense_is_an_error() -> None:
    broken = tiny_model(context=48)
    with torch.no_grad():
        broken.backbone.ln_f.weight.fill_(math.nan)
    with pytest.raises(UserError, match="not finite in windows of 48 bases"):
        list(evaluate(broken, GENOME, WHOLE))


def test_what_is_read(tmp_path: Path) -> None:
    contigs = [contig(BASES, "x", "a.fa"), contig(BASES, "y", "a.fa"), contig(BASES[:50], "x", "b.fa")]
    first, second, third = (Interval(i, 0, len(c)) for i, c in enumerate(contigs))
    assert choose_intervals(contigs) == [first, second, third]
    assert choose_intervals(contigs, names="x") == [first, third]
    assert choose_intervals(contigs, names="y, x") == [first, second, third]
    bed = write_bed(
        tmp_path / "s.bed", [("y", 0, 100, "train"), ("y", 100, 180, "valid"), ("y", 180, 200, "valid")]
    )
    assert choose_intervals(contigs, bed=bed) == [Interval(1, 100, 200)]
    assert choose_intervals(contigs, bed=bed, split="train") == [Interval(1, 0, 100)]


def test_choices_that_cannot_be_met(tmp_path: Path) -> None:
    contigs = [contig(BASES, "chr1")]
    bed = write_bed(tmp_path / "s.bed", [("chr1", 0, 100, "train"), ("chr1", 100, 200, "test")])
    with pytest.raises(UserError, match="no contig 'chr2' to evaluate on; did you mean 'chr1'"):
        choose_intervals(contigs, names="chr1,chr2")
    with pytest.raises(UserError, match="no interval is for valid; give --split train or test"):
        choose_intervals(contigs, bed=bed)
    with pytest.raises(UsageError, match="leave --contigs out"):
        choose_intervals(contigs, bed=bed, names="chr1")
    with pytest.raises(UsageError, match="give it with --intervals"):
        choose_intervals(contigs, split="test")


@pytest.mark.parametrize("text", ["", "x", "8,", "0", "-8", "8.5", "1e3", "²"])
def test_lengths_are_whole_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="is not a length; give whole numbers from 1 on"):
        parse_lengths(text)
