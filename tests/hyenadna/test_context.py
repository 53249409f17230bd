"""Processes that share windows compute what one computes alone."""

import copy
import functools
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional

from hyenadna import HyenaConfig, HyenaDNA, ModelError
from hyenadna.engine import training
from hyenadna.engine.mixer import ContextGroup
from hyenadna.engine.tiling import Tiling
from hyenadna.engine.training import IGNORED, next_token_loss
from hyenadna.engine.workspace import Workspace

WORLD = 4
CONFIG = HyenaConfig(8, 2, 16, 66, embed_dropout=0.0)
PIECES = Tiling(tokens=7, samples=1, block=1 << 62, min_channels=1, row_tokens=1)
Gradients = dict[str, torch.Tensor]


def windows(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(length)
    tokens = torch.randint(7, 11, (batch, length + 1), generator=draw)
    targets = tokens[:, 1:].clone()
    targets[:, ::7] = IGNORED
    return tokens[:, :-1], targets, torch.rand(batch, length, generator=draw)


def model_of(dtype: torch.dtype, **changes: Any) -> HyenaDNA:
    torch.manual_seed(1)
    return HyenaDNA(HyenaConfig(**(vars(CONFIG) | changes))).to(dtype).train()


def loss_and_gradients(model: HyenaDNA, data: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, Gradients]:
    loss = next_token_loss(model, *data)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients


@functools.cache
def single(dtype: torch.dtype, length: int) -> tuple[torch.Tensor, Gradients]:
    """Loss and gradients of one process alone."""
    inputs, targets, weights = windows(2, length)
    return loss_and_gradients(model_of(dtype), (inputs, targets, weights.to(dtype)))


def compare(context: ContextGroup, group: Any, dtype: torch.dtype, length: int, *, again: bool) -> None:
    """Loss and gradients of this group's processes together, against one process."""
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    inputs, targets, weights = windows(2, length)
    data = (inputs, targets, weights.to(dtype))
    expected_loss, expected = single(dtype, length)
    model = model_of(dtype)
    model.backbone.context, model.backbone.activation_checkpointing = context, again
    loss, gradients = loss_and_gradients(model, data)
    dist.all_reduce(loss, group=group)
    torch.testing.assert_close(loss, expected_loss, rtol=tolerance, atol=0)
    for name, p in model.named_parameters():
        total = gradients.get(name, torch.zeros_like(p))
        dist.all_reduce(total, group=group)
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(total, expected[name], rtol=0, atol=tolerance * (scale + 1e-3), msg=name)


def check(rank: int, folder: str) -> None:
    """What each process does; an exception is its exit code 1."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    all_ranks = ContextGroup()
    for group, context in ((pairs[rank // 2], ContextGroup(pairs[rank // 2])), (None, all_ranks)):
        # a multiple of every size, one that is filled up, one shorter than the group, and l_max, which
        # filled up is beyond the filter's values
        for length in (64, 37, 3, 66):
            compare(context, group, torch.float64, length, again=False)
        compare(context, group, torch.float32, 37, again=False)
        compare(context, group, torch.float64, 37, again=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "training_tiling", lambda *_: PIECES)  # of the group alone
            compare(context, group, torch.float64, 37, again=False)
        swap(context)
    dropout(all_ranks)
    half_precision(all_ranks)
    evaluation(all_ranks)
    with pytest.raises(ModelError, match="a width of 6 cannot be shared by 4 processes"):
        all_ranks.local_channels(6)
    model = model_of(torch.float32)
    model.backbone.context = all_ranks
    assert copy.deepcopy(model).backbone.context is None
    assert pickle.loads(pickle.dumps(model)).backbone.context is None
    dist.destroy_process_group()


def swap(context: ContextGroup) -> None:
    """Every process gets its channels of all positions, and gives them back."""
    work, x_DBL = Workspace(), torch.arange(2 * context.size * 3 * 9.0).view(-1, 3, 9)
    own = -(-9 // context.size)
    filled_DBL = functional.pad(x_DBL, (0, own * context.size - 9))
    here_PCBl = filled_DBL[..., context.rank * own :][..., :own].reshape(context.size, 2, 3, own).contiguous()
    whole_CBL = torch.empty(2, 3, 9)
    context.to_channels(here_PCBl, whole_CBL, work)
    torch.testing.assert_close(whole_CBL, x_DBL[context.local_channels(len(x_DBL))])
    torch.testing.assert_close(context.to_positions(whole_CBL, own, work), here_PCBl)


def dropout(context: ContextGroup) -> None:
    """The masks of the loss are those of its gradient, also where a block is computed again."""
    rates = {"embed_dropout": 0.3, "hyena_dropout": 0.3, "resid_dropout": 0.3}

    def run(again: bool = False, moved: float = 0) -> tuple[torch.Tensor, Gradients]:
        model = model_of(torch.float64, **rates)
        model.backbone.context, model.backbone.activation_checkpointing = context, again
        for p in model.parameters():
            p.data += moved
        torch.manual_seed(5 + context.rank)
        loss, gradients = loss_and_gradients(model, windows(1, CONFIG.l_max)[:2])
        dist.all_reduce(loss)
        return loss, gradients

    kept, again = run()[1], run(again=True)[1]
    for name, gradient in kept.items():
        torch.testing.assert_close(gradient, again[name], rtol=0, atol=1e-10, msg=name)
    step = 1e-6
    slope = torch.stack([gradient.sum() for gradient in kept.values()]).sum()
    dist.all_reduce(slope)
    difference = (run(moved=step)[0] - run(moved=-step)[0]) / (2 * step)
    torch.testing.assert_close(difference, slope, rtol=1e-6, atol=0)


def half_precision(context: ContextGroup) -> None:
    """Near the single process's, in autocast and with weights of half precision."""
    for dtype, autocast in ((torch.float32, True), (torch.bfloat16, False)):
        results = []
        for shared in (None, context):
            model = model_of(dtype)
            model.backbone.context = shared
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = next_token_loss(model, *windows(2, 37)[:2])
            loss.backward()  # type: ignore[no-untyped-call]
            sums = [p.grad.float().flatten() for p in model.parameters() if p.grad is not None]
            results.append((loss.detach(), torch.cat(sums)))
        for total in results[1]:
            dist.all_reduce(total)
        torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-3, atol=0)
        assert (results[1][1] - results[0][1]).norm() < 0.02 * results[0][1].norm()


def evaluation(context: ContextGroup) -> None:
    """Without gradients every process reads whole windows by itself."""
    model = model_of(torch.float64).eval()
    data = windows(1, 64)[:2]
    with torch.inference_mode():
        alone = next_token_loss(model, *data)
        model.backbone.context = context
        torch.testing.assert_close(next_token_loss(model, *data), alone)


def test_two_and_four_processes_equal_one(tmp_path: Path) -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.hyenadna.test_context"])
    processes = [server.Process(target=check, args=(rank, str(tmp_path))) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * WORLD
