"""One run of fine-tuning: a model, a split of the data, one seed, one directory.

N record, S strand, D width.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli import __version__, console
from hyenacli.adaptation.evaluator import Judge, Logits
from hyenacli.adaptation.labels import class_weights
from hyenacli.adaptation.losses import Criterion
from hyenacli.adaptation.methods import build_model, head_for
from hyenacli.adaptation.supervised import Predict, predict_in_shares
from hyenacli.devices import autocast
from hyenacli.distributed import current_ranks
from hyenacli.finetune.in_context import choose_demonstrations
from hyenacli.finetune.label_splits import LabelSplits
from hyenacli.finetune.labelled_set import LabelledSet
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.inference.embedding import embed
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.pooling import Pooling
from hyenacli.inference.prediction import predict
from hyenacli.readers.labelled_record import LabelledRecord
from hyenacli.readers.records import SequenceRecord, whole_record
from hyenacli.training.gradients import sum_array
from hyenadna import HyenaDNA

Features = NDArray[np.float32]


class Trial:
    """One run of fine-tuning.

    Args:
        settings: with the method's defaults; its output is the trial's directory.
        data: the labelled records.
        splits: what is trained on, chosen by and tested on.
        device: where the model goes.
    """

    def __init__(
        self, settings: FinetuneSettings, data: LabelledSet, splits: LabelSplits, device: torch.device
    ) -> None:
        self.settings, self.data, self.splits = settings, data, splits
        self.device = device
        self.precision = partial(autocast, device, settings.dtype)
        self._features: Features | None = None

    @property
    def frozen_states(self) -> bool:
        """Whether the model's states are computed once, before training."""
        return self.settings.method == "head" and self.data.scheme.level == "sequence"

    def build(self) -> HyenaDNA:
        """The model before its first step, on the device; also the features, where they are computed once."""
        targets = [self.data.targets[i] for i in self.splits.train.tolist()]
        model = build_model(self.settings, head_for(self.settings, self.data.scheme, targets))
        if self.settings.method == "icl":
            shots = choose_demonstrations(self.settings, self.data, self.splits, model.longest_input)
            model.set_demonstrations(shots)
        model = model.to(self.device)
        if self.frozen_states:
            self._features = self._compute_features(model.eval())
        return model

    def origin(self) -> dict[str, object]:
        """What checkpoints say of where they come from."""
        return {
            "made_by": f"hyena finetune {__version__}",
            "model": self.settings.model,
            "method": self.settings.method,
            "data": self.data.inputs["path"],
        }

    def judge(self, split: str) -> Judge:
        """The labels of a split."""
        places = getattr(self.splits, split).tolist()
        return Judge(self.data.scheme, [self.data.targets[i] for i in places])

    def predict_split(self, model: HyenaDNA, split: str) -> list[Logits]:
        """What a model says of the records of a split; the same on every rank.

        Raises:
            UserError: as `predict`.
        """
        model.eval()
        places = getattr(self.splits, split).tolist()
        per_base = self.data.scheme.level == "nucleotide"
        sizes = [len(self.data.records[i].sequence) if per_base else 0 for i in places]
        way: Predict = self._predict if self._features is None else self._project
        with torch.inference_mode(), self.precision():
            return predict_in_shares(way, model, places, sizes, self.device)

    def features_of(self, split: str) -> Features:
        """The features (N, S, D) of a split, where they are computed once."""
        assert self._features is not None  # noqa: S101  (a bug, not an input)
        features_NSD: Features = self._features[getattr(self.splits, split)]
        return features_NSD

    def _predict(self, model: HyenaDNA, places: Sequence[int]) -> list[Logits]:
        stretches = (stretch_of(self.data.records[i]) for i in places)
        answers = predict(model, stretches, rc=self.settings.rc == "mean")
        return [answer.logits for answer in answers if answer.logits is not None]

    def _project(self, model: HyenaDNA, places: Sequence[int]) -> list[Logits]:
        assert self._features is not None  # noqa: S101  (a bug, not an input)
        assert model.head is not None  # noqa: S101
        # in float64, as `predict` does it: no autocast touches that
        head = deepcopy(model.head).cpu().double()
        states_ND = torch.from_numpy(self.pooled(self._features[places])).double()
        return list(head.project(states_ND).numpy())

    def pooled(self, features_NSD: Features) -> Features:
        """What predictions are made from (N, D): the sequence as it is, or the mean of both strands."""
        both_ND: Features = features_NSD.mean(axis=1) if self.settings.rc == "mean" else features_NSD[:, 0]
        return both_ND

    def _compute_features(self, model: HyenaDNA) -> Features:
        """The pooled states (N, S, D) of every record: of both strands where one of them is asked for."""
        records, ranks = self.data.records, current_ranks()
        strands = 2 if self.settings.rc_augment or self.settings.rc == "mean" else 1
        recipe = EmbeddingOptions(
            pooling=Pooling(self.settings.pool),
            rc="concat" if strands == 2 else "none",
            window=self.settings.max_length,
        )
        width = model.config.d_model
        whole = np.zeros((len(records), strands * width))
        mine = range(ranks.rank, len(records), ranks.world_size)
        console.log.info("computing the features of %s sequences", f"{len(records):,}")
        with torch.inference_mode(), self.precision(), console.progress() as bar:
            task = bar.add_task("features", total=len(mine))
            answers = embed(model, (stretch_of(records[i]) for i in mine), recipe)
            for i, answer in zip(mine, answers, strict=True):
                assert answer.vectors is not None  # noqa: S101  (a bug, not an input)
                whole[i] = answer.vectors[0, 0]
                bar.update(task, advance=1)
        summed: Features = sum_array(whole, device=self.device).astype(np.float32)
        return summed.reshape(len(records), strands, width)

    def criterion(self) -> Criterion:
        """The loss."""
        settings, scheme = self.settings, self.data.scheme
        targets = [self.data.targets[i] for i in self.splits.train.tolist()]
        weights = None
        if settings.class_weights == "balanced":
            flat = [target.reshape(-1) if scheme.has_classes else target for target in targets]
            joined = np.concatenate([np.atleast_1d(target) for target in flat])
            weights = class_weights(scheme, joined)
        return Criterion(scheme, weights, head_for(settings, scheme, targets).scale)


def stretch_of(record: LabelledRecord) -> SequenceRecord:
    """A record's bases, as they are to be read."""
    return whole_record(record.id, record.sequence)
