"""The order of examples over epochs, and how they and their labels are stacked."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from hyenacli.adaptation.examples import Criterion, Epochs, TokenExamples
from hyenacli.adaptation.labels import IGNORED, LabelScheme
from hyenacli.inference.sampling import complement
from hyenacli.readers.tables import LabelledRecord
from hyenadna import Tokenizer
from hyenadna.tokenizer import PAD

LENGTHS = [10 + (7 * i) % 23 for i in range(50)]


def epochs(count: int = 3, seed: int = 1, *, batch: int = 8, rc: bool = True) -> Epochs:
    return Epochs(LENGTHS, batch_size=batch, epochs=count, seed=seed, rc_augment=rc)


def in_order() -> Callable[[Sequence[int]], Epochs]:
    return partial(Epochs, batch_size=1, epochs=1, seed=0, rc_augment=False)


def lengths_of(epochs: Epochs) -> list[int]:
    """Of examples in batches of one."""
    return sorted(epochs.at(step).length for step in range(epochs.steps))


def places_of(plan: Epochs, step: int) -> list[int]:
    stage = plan.at(step)
    return plan.draw(range(stage.first_window, stage.first_window + stage.windows))[0].tolist()


def test_every_epoch_reads_everything_once_in_another_order() -> None:
    plan = epochs()
    orders = []
    for epoch in range(3):
        steps = range(epoch * plan.per_epoch, (epoch + 1) * plan.per_epoch)
        orders.append([place for step in steps for place in places_of(plan, step)])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != orders[2]


def test_a_step_is_a_function_of_the_seed_and_its_number() -> None:
    one, two = epochs(), epochs()
    later = [places_of(one, step) for step in (20, 3, 11)]
    assert later == [places_of(two, step) for step in (20, 3, 11)]
    assert later != [places_of(epochs(seed=2), step) for step in (20, 3, 11)]
    stage = one.at(5)
    whole = one.draw(range(stage.first_window, stage.first_window + 8))
    halves = [one.draw(range(stage.first_window + i, stage.first_window + i + 4)) for i in (0, 4)]
    for i in (0, 1):
        assert np.array_equal(whole[i], np.concatenate([half[i] for half in halves]))


def test_batches_are_of_like_length_and_say_their_longest() -> None:
    plan = epochs()
    spreads = []
    for step in range(plan.steps):
        own = [LENGTHS[place] for place in places_of(plan, step)]
        assert plan.at(step).length == max(own)
        spreads.append(max(own) - min(own))
    assert np.mean(spreads) < 8 < max(LENGTHS) - min(LENGTHS)
    assert sum(plan.at(step).windows for step in range(plan.per_epoch)) == 50


def test_half_of_the_examples_are_turned_where_asked_for() -> None:
    turned = epochs(40).draw(range(2000))[1]
    assert 0.45 < turned.mean() < 0.55
    assert not epochs(rc=False).draw(range(50))[1].any()


SEQUENCE = LabelScheme("binary", "sequence", ("a", "b"))
BASES = LabelScheme("multiclass", "nucleotide", ("x", "y", "z"))


def record(bases: bytes) -> LabelledRecord:
    return LabelledRecord("r", bases, None)


def test_of_a_long_sequence_every_window_is_read_in_some_epoch() -> None:
    bases = b"AACCCGGGTT"
    targets = [np.array(1), np.array(0)]
    examples = TokenExamples([record(bases), record(b"ACG")], targets, SEQUENCE, 4, 3, in_order())
    assert (lengths_of(examples.epochs), examples.n_longer) == ([3, 4], 1)

    def rows(number: int, *, turn: bool = False) -> list[list[int]]:
        host = examples.batch(range(number, number + 2), np.array([0, 1]), np.array([turn, True]), 4)
        assert host.targets.tolist() == [1, 0]
        ids: list[list[int]] = host.inputs.tolist()
        return ids

    whole = Tokenizer().encode_array(bases).tolist()
    seen = {tuple(rows(number)[0]) for number in range(100)}
    assert seen == {tuple(whole[i : i + 4]) for i in range(7)}
    assert rows(7) == rows(7)
    assert rows(7, turn=True)[0] == complement(np.array(rows(7)[0], np.uint8)).tolist()
    assert rows(0)[1] == [*Tokenizer().encode_array(b"CGT").tolist(), PAD]


def test_every_base_of_a_long_sequence_is_learnt_from_once() -> None:
    bases, labels = b"ACGTACGTAC", np.arange(10) % 3
    examples = TokenExamples([record(bases)], [labels], BASES, 4, 0, in_order())
    assert lengths_of(examples.epochs) == [4, 4, 4]
    host = examples.batch(range(3), np.arange(3), np.zeros(3, bool), 5)
    assert np.count_nonzero(host.targets != IGNORED) == 10
    assert host.targets[0].tolist() == [0, 1, 2, 0, IGNORED]
    # the last window is moved back, and learns of the bases that no other has
    assert host.targets[2].tolist() == [IGNORED, IGNORED, 2, 0, IGNORED]
    turned = examples.batch(range(1), np.array([2]), np.array([True]), 5)
    assert turned.targets[0].tolist() == [0, 2, IGNORED, IGNORED, IGNORED]
    assert turned.inputs[0, :4].tolist() == complement(host.inputs[2, :4]).tolist()


def test_numbers_of_bases_are_padded_with_nothing() -> None:
    scheme = LabelScheme("regression", "nucleotide", ("u", "v"))
    targets = [np.ones((3, 2), np.float32), np.ones((2, 2), np.float32)]
    examples = TokenExamples([record(b"ACG"), record(b"AC")], targets, scheme, 9, 0, in_order())
    host = examples.batch(range(2), np.array([0, 1]), np.zeros(2, bool), 3)
    assert np.isnan(host.targets[1, 2]).all()
    assert np.isnan(host.targets).sum() == 2


def test_the_loss_of_classes() -> None:
    outputs, targets = torch.randn(4, 3), torch.tensor([0, 2, IGNORED, 1])
    criterion = Criterion(LabelScheme("multiclass", "sequence", ("a", "b", "c")), None, ())
    expected = functional.cross_entropy(outputs[[0, 1, 3]], targets[[0, 1, 3]], reduction="sum")
    assert torch.allclose(criterion.loss(outputs, targets), expected)
    assert criterion.count(targets.numpy()) == 3
    weights = np.array([1, 2, 4], np.float32)
    weighted = Criterion(LabelScheme("multiclass", "sequence", ("a", "b", "c")), weights, ())
    assert weighted.count(targets.numpy()) == 1 + 4 + 2
    mean = weighted.loss(outputs, targets) / weighted.count(targets.numpy())
    assert torch.allclose(mean, functional.cross_entropy(outputs, targets, torch.from_numpy(weights)))


def test_the_loss_of_labels_leaves_out_what_is_missing() -> None:
    outputs = torch.tensor([[0.5, -1.0], [2.0, 9.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [1.0, np.nan]])
    criterion = Criterion(LabelScheme("multilabel", "sequence", ("a", "b")), None, ())
    loss = criterion.loss(outputs, targets)
    known = functional.binary_cross_entropy_with_logits(
        torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 0.0, 1.0]), reduction="sum"
    )
    assert torch.allclose(loss, known)
    assert criterion.count(targets.numpy()) == 3
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert outputs.grad[1, 1] == 0


def test_errors_of_a_regression_are_in_units_of_the_scale() -> None:
    criterion = Criterion(LabelScheme("regression", "sequence", ("a", "b")), None, (10.0, 0.1))
    outputs, targets = torch.tensor([[5.0, 1.0]]), torch.tensor([[15.0, 1.2]])
    assert float(criterion.loss(outputs, targets)) == pytest.approx(1 + 4)
