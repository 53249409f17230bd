"""Linear heads on the pooled states of a frozen model, which are computed once.

N record, S strand, D width, C output.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli import console
from hyenacli.adaptation.evaluation import Logits, SplitEvaluator
from hyenacli.distributed import current_ranks, sum_array
from hyenacli.evaluation.linear import LinearModel, fit_linear
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.inference.embedding import embed
from hyenacli.inference.embedding_options import EmbeddingOptions, Pooling
from hyenacli.readers.records import SequenceRecord
from hyenacli.readers.tables import LabelledRecord
from hyenadna import HyenaDNA
from hyenadna.config import Pool

Floats32 = NDArray[np.float32]
_POOLS: tuple[Pool, ...] = ("mean", "max", "last")
_PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)


class _Way(NamedTuple):
    """A way from states to predictions: the layers kept, the pool, and both strands or one."""

    layers: int
    pool: Pool
    both_strands: bool

    def describe(self, model: HyenaDNA) -> str:
        """Return it in words, without the layers where they are all of a model's."""
        strands = "both strands" if self.both_strands else "one strand"
        have = model.config.n_layer
        fewer = f", {self.layers} of {have} layers" if self.layers < have else ""
        return f"{strands}, {self.pool} of the bases{fewer}"


class Features:
    """The pooled states of all records, of both strands where either is needed; the same on every rank.

    Args:
        model: in eval mode, on its device.
        settings: layers, pool, window and strands.
        precision: makes the context of every pass.

    Attributes:
        states_NSD: of every record, as it is and, where S is 2, of its reverse complement; where the pool is
            chosen by `fit_head`, by the pool chosen last; likewise the layers.
    """

    def __init__(
        self,
        model: HyenaDNA,
        records: Sequence[LabelledRecord],
        settings: FinetuneSettings,
        precision: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
    ) -> None:
        self._mean, self._augment = settings.rc == "mean", settings.rc_augment
        # the validation split chooses from these
        n_layer = model.config.n_layer
        layers = range(n_layer, 0, -1) if settings.layers == "auto" else (n_layer,)
        pools = _POOLS if settings.pool == "auto" else (settings.pool,)
        strands = (False, True) if settings.rc == "auto" else (self._mean,)
        self._ways = [_Way(*way) for way in product(layers, pools, strands)]
        options = EmbeddingOptions(
            rc="concat" if self._augment or any(strands) else "none", window=settings.max_length
        )
        times = len(layers) * len(pools)
        ways = f", in {times} ways" if times > 1 else ""
        console.log.info("computing the features of %s sequences%s", f"{len(records):,}", ways)
        self._states: dict[tuple[int, Pool], Floats32] = {}
        for count in layers:
            shallow = model if count == n_layer else deepcopy(model)
            shallow.keep_layers(count)
            for pool in pools:
                pooled = replace(options, pooling=Pooling(pool))
                self._states[count, pool] = _states(shallow, records, pooled, precision, device)
        self._use(self._ways[0])

    def predicted_from(self, indices: Sequence[int]) -> Floats32:
        """Return the features (N, D) of predictions: of one strand, or the mean of both."""
        states_NSD = self.states_NSD[list(indices)]
        mean_ND: Floats32 = states_NSD.mean(axis=1) if self._mean else states_NSD[:, 0]
        return mean_ND

    def logits(self, model: HyenaDNA, indices: Sequence[int]) -> list[Logits]:
        """Compute what a model's head makes of records, in float64 as `predict` does."""
        assert model.head is not None  # noqa: S101  (internal invariant)
        # no autocast touches float64
        head = deepcopy(model.head).cpu().double()
        return list(head.project(torch.from_numpy(self.predicted_from(indices)).double()).numpy())

    def fit_head(
        self,
        model: HyenaDNA,
        indices: dict[str, list[int]],
        evaluators: dict[str, SplitEvaluator],
        *,
        balanced: bool,
    ) -> float:
        """Fit the weights of a model's head in place; the validation split chooses all else.

        That is the penalty and, where the settings leave them open, the layers that the model keeps, pool and
        strands.

        Args:
            model: whose head is fitted.
            indices: of the records of the splits train and valid.
            evaluators: their labels.
            balanced: weight classes inversely to their frequency.

        Returns:
            The validation split's metric, the one that `metrics.monitor` names.
        """
        config, valid = model.config.head, evaluators["valid"]
        assert model.head is not None and config is not None  # noqa: S101, PT018  (internal invariant)
        metric = monitor(valid.scheme.task)
        fitted = []
        for way in self._ways:
            self._use(way)
            quality, linear = max(self._fit(indices, evaluators, balanced=balanced), key=lambda fit: fit[0])
            fitted.append((quality, linear, way))
            if len(self._ways) > 1:
                console.log.info("a head on %s: valid %s %.3f", way.describe(model), metric, quality)
        best, linear, way = max(fitted, key=lambda fit: fit[0])
        self._use(way)
        model.keep_layers(way.layers)
        model.config = replace(model.config, head=replace(config, pool=way.pool, rc=way.both_strands))
        weights_CD, bias_C = linear.weights_TF, linear.bias_T
        if config.scale:
            scale_C = np.array(config.scale)
            weights_CD, bias_C = weights_CD / scale_C[:, None], (bias_C - np.array(config.center)) / scale_C
        layer = model.head.output_transform
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weights_CD))
            layer.bias.copy_(torch.from_numpy(bias_C))
        return best if best > -np.inf else float("nan")

    def _use(self, way: _Way) -> None:
        self.states_NSD, self._mean = self._states[way.layers, way.pool], way.both_strands

    def _fit(
        self, indices: dict[str, list[int]], evaluators: dict[str, SplitEvaluator], *, balanced: bool
    ) -> Iterator[tuple[float, LinearModel]]:
        """Yield a linear model for each penalty, with the validation split's metric, -inf where undefined."""
        valid = evaluators["valid"]
        task, size = valid.scheme.task, valid.scheme.n_outputs
        features_ND, targets = self._training_rows(indices["train"], evaluators["train"].targets)
        valid_ND = self.predicted_from(indices["valid"])
        for linear in fit_linear(task, features_ND, targets, size, _PENALTIES, balanced=balanced):
            logits_NC = linear.logits(valid_ND).astype(np.float64)
            quality = valid.metrics(list(logits_NC))[monitor(task)]
            console.log.debug("penalty %g: valid %s %.4f", linear.penalty, monitor(task), quality)
            yield float(np.nan_to_num(quality, nan=-np.inf)), linear

    def _training_rows(self, indices: Sequence[int], targets: NDArray[Any]) -> tuple[Floats32, NDArray[Any]]:
        """Return features (N, D) and targets; a row for each strand where both are used."""
        strands = self.states_NSD.shape[1] if self._mean or self._augment else 1
        states_NSD = self.states_NSD[list(indices), :strands]
        features_ND = states_NSD.swapaxes(0, 1).reshape(-1, states_NSD.shape[2]).copy()
        return features_ND, np.concatenate([targets] * strands)


def _states(
    model: HyenaDNA,
    records: Sequence[LabelledRecord],
    options: EmbeddingOptions,
    precision: Callable[[], AbstractContextManager[Any]],
    device: torch.device,
) -> Floats32:
    """Compute the pooled states of all records (N, S, D), the same on every rank."""
    ranks, n_strands = current_ranks(), 2 if options.rc == "concat" else 1
    states_NF = np.zeros((len(records), n_strands * model.config.d_model))
    indices = range(ranks.rank, len(records), ranks.world_size)
    bar = console.Progress("computing features", len(indices), "sequences")
    with torch.inference_mode(), precision(), bar:
        sequences = (SequenceRecord.of_sequence(records[i].id, records[i].sequence) for i in indices)
        answers = zip(indices, embed(model, sequences, options), strict=True)
        for done, (i, answer) in enumerate(answers, 1):
            assert answer.vectors is not None  # noqa: S101  (internal invariant)
            states_NF[i] = answer.vectors[0, 0]
            bar.update(done)
    states_NF = sum_array(states_NF, device=device)
    return states_NF.astype(np.float32).reshape(len(records), n_strands, -1)
