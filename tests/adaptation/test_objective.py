"""The loss of labels."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hyenacli.adaptation.labels import IGNORED, LabelScheme
from hyenacli.adaptation.objective import Criterion


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
