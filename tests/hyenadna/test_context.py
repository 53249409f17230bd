"""Processes that share windows compute what one computes alone."""

import copy
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hyenadna import HyenaConfig, HyenaDNA, ModelError
from hyenadna.engine.context import ContextGroup
from hyenadna.engine.training import IGNORED, next_token_loss

WORLD = 4
CONFIG = HyenaConfig(8, 2, 16, 66, embed_dropout=0.0)
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


def compare(context: ContextGroup, group: Any, dtype: torch.dtype, length: int, *, again: bool) -> None:
    """Loss and gradients of this group's processes together, against one process."""
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    inputs, targets, weights = windows(2, length)
    data = (inputs, targets, weights.to(dtype))
    expected_loss, expected = loss_and_gradients(model_of(dtype), data)
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
    for group in (pairs[rank // 2], None):
        context = ContextGroup(group)
        # a multiple of every size, one that is filled up, one shorter than the group, and l_max, which
        # filled up is beyond the filter's values
        for length in (64, 37, 3, 66):
            compare(context, group, torch.float64, length, again=False)
        compare(context, group, torch.float32, 37, again=False)
        compare(context, group, torch.float64, 37, again=True)
        u_KBl = torch.arange(3 * 8 * 2 * 5.0).view(24, 2, 5) + 1_000 * context.rank
        u_KBL = context.to_channels(u_KBl)
        assert u_KBL.shape == (24 // context.size, 2, 5 * context.size)
        v_CBL = u_KBL.view(3, -1, 2, 5 * context.size)[2]
        torch.testing.assert_close(context.to_positions(v_CBL.contiguous()), u_KBl[16:])
    dropout(context)
    evaluation(context)
    with pytest.raises(ModelError, match="a width of 6 cannot be shared by 4 processes"):
        context.own_channels(6)
    assert copy.deepcopy(context) is None
    assert pickle.loads(pickle.dumps(context)) is None
    dist.destroy_process_group()


def dropout(context: ContextGroup) -> None:
    """Masks differ from process to process, and are drawn alike when a block is computed again."""
    results = []
    for again in (False, True):
        model = model_of(torch.float64, embed_dropout=0.3, hyena_dropout=0.3, resid_dropout=0.3)
        model.backbone.context, model.backbone.activation_checkpointing = context, again
        torch.manual_seed(5 + context.rank)
        results.append(loss_and_gradients(model, windows(1, 64)[:2]))
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], rtol=0, atol=1e-10, msg=name)
    exact, _ = loss_and_gradients(model_of(torch.float64), windows(1, 64)[:2])
    total = results[0][0].clone()
    dist.all_reduce(total)
    assert abs(total / exact - 1) > 1e-7


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
