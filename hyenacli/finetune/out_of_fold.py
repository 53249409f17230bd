"""All folds of a cross-validation together: every record as the model says it that was tested on it."""

from collections.abc import Mapping

import numpy as np
import torch

from hyenacli.adaptation.evaluation_result import Judging, Outcome
from hyenacli.distributed import current_ranks
from hyenacli.finetune.label_splits import LabelSplits
from hyenacli.finetune.labelled_set import LabelledSet
from hyenacli.finetune.predictions import write_predictions
from hyenacli.finetune.run import Trial
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.inference.prediction import head_of
from hyenadna import load_model


def pool_folds(
    settings: FinetuneSettings, data: LabelledSet, folds: Mapping[int, FinetuneSettings], device: torch.device
) -> Outcome:
    """Judge all folds as one test split, and write the predictions of it.

    Args:
        settings: of the whole run.
        data: its records.
        folds: the settings of each fold's trial, which is made.
        device: where models go.

    Returns:
        What they are worth; the same on every rank, which all take part.
    """
    everybody = np.arange(len(data.records))
    nobody = everybody[:0]
    whole = Trial(settings, data, LabelSplits(nobody, nobody, everybody), device)
    logits = dict.fromkeys(everybody.tolist(), np.empty(0))
    head = None
    # the scale of a regression's errors is that of the first fold
    criterion = Trial(settings, data, data.splits[0], device).criterion()
    for fold, of_fold in folds.items():
        trial = Trial(of_fold, data, data.splits[fold], device)
        model = load_model(of_fold.output).to(device)
        head = head_of(model)
        logits |= zip(trial.splits.test.tolist(), trial.predict_split(model, "test"), strict=True)
    judging = Judging(criterion, settings.seed, letters=settings.method == "icl")
    scored = judging.score(whole.judge("test"), [logits[i] for i in everybody.tolist()])
    outcome = Outcome({"test": scored})
    if current_ranks().first and head is not None:
        write_predictions(settings.output, whole, head, outcome.splits, "of each fold its own")
    return outcome
