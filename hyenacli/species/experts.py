"""What joins a species model: Markov models of genomes, and on long contigs what is fitted to long pieces.

A window says little of its species and a long contig much: k-mers that are fitted to long pieces, and weights
that are fitted there, say more of a contig than the mean of what was learnt from single windows.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hyenacli import console
from hyenacli.adaptation.baseline import MIN_VALID, joint_choices
from hyenacli.adaptation.evaluation import Baseline, Logits, PieceJoint
from hyenacli.adaptation.examples import HostBatch
from hyenacli.evaluation.joining import NETWORK, fit_joint
from hyenacli.evaluation.kmers import KmerFeatures, KmerModel, fit_kmers
from hyenacli.evaluation.markov import MarkovClassifier, fit_markov, informative_orders
from hyenacli.evaluation.report import number_table
from hyenacli.species.splits import SpeciesSplits
from hyenacli.species.windows import HeldOut, bases_of

_FACTOR = 4
"""Pieces are so many times as long as the next shorter ones."""
_LEAST_PIECES = 8
"""Of each species, to fit weights to."""
_MAX_BASES = 1 << 21
"""Of the validation pieces of a length together, which the network reads."""


def fit_species_markov(splits: SpeciesSplits, window: int) -> MarkovClassifier:
    """Fit Markov models to both strands of all training bases of each species."""
    bases = [sum(map(len, intervals)) for intervals in splits.intervals("train")]
    console.log.info("fitting Markov models to %s bases", f"{sum(bases):,}")
    orders = informative_orders(max(bases))
    genomes = (splits.training_bases(label, orders[-1]) for label in range(len(splits.names)))
    return fit_markov(genomes, orders, window)


def held_out_pieces(splits: SpeciesSplits, window: int, most: int) -> dict[int, HeldOut]:
    """Return validation pieces of 4, 16, 64 ... windows, as long as every species has enough of them.

    Args:
        splits: of the species.
        window: bases of a window.
        most: pieces of each species and length.
    """
    pieces, length = dict[int, HeldOut](), _FACTOR * window
    while (count := min(most, _MAX_BASES // (length * len(splits.names)))) >= _LEAST_PIECES:
        held_out = HeldOut(splits, "valid", length, count)
        counts = np.bincount(held_out.labels_N, minlength=len(splits.names))
        if counts.min() < _LEAST_PIECES or counts.sum() < MIN_VALID:
            break
        pieces[length] = held_out
        length *= _FACTOR
    return pieces


def fit_piece_joint(
    experts: Sequence[Baseline],
    pieces: HeldOut,
    logits: Sequence[Logits],
    train: HostBatch,
    *,
    always: bool,
) -> PieceJoint:
    """Fit k-mers to training pieces of a length, and choose and weight what is joined by validation pieces.

    Args:
        experts: that join the network on single windows.
        pieces: of the validation split.
        logits: of the network, the mean over the windows of each of them.
        train: the training pieces.
        always: join all; else what predicts the validation pieces best, as `with_baselines` chooses.
    """
    evaluator, sequences = pieces.evaluator, pieces.sequences
    task, targets = evaluator.scheme.task, evaluator.targets
    models: dict[str, KmerModel | MarkovClassifier] = {}
    for expert in experts:
        model = expert.model
        if isinstance(model, KmerModel):
            model = fit_kmers(
                bases_of(train.inputs),
                train.targets,
                task,
                valid=(sequences, targets),
                n_classes=evaluator.scheme.n_outputs,
                features=KmerFeatures(),
            )
        models[expert.kind] = model
    outputs = {NETWORK: evaluator.stacked(logits)[None]}
    outputs |= {kind: model.outputs(sequences) for kind, model in models.items()}
    joint = fit_joint(task, outputs, targets, joint_choices(list(outputs), always=always), offsets=True)
    members = tuple(model for kind, model in models.items() if kind in joint.members)
    result = PieceJoint(len(pieces), joint, members)
    console.log.info("contigs of %s bases and more: %s", f"{pieces.length:,}", result.sentence)
    return result


def pieces_table(pieces: Mapping[int, PieceJoint]) -> list[str]:
    """Return the section of a report on what is joined on long contigs; none where there is nothing."""
    if not pieces:
        return []
    choices = list(next(iter(pieces.values())).joint.losses)
    header = ["contigs of at least", "validation pieces", "joined", *(f"loss of {name}" for name in choices)]
    rows = [
        [f"{length:,}", f"{part.count:,}", ", ".join(part.joint.members)]
        + [f"{part.joint.losses[name]:.3f}" for name in choices]
        for length, part in pieces.items()
    ]
    text = (
        "Contigs are cut into pieces of the greatest of these lengths that they reach. k-mers were fitted "
        "to training pieces of that length, and what is joined was chosen and weighted by validation pieces; "
        "a loss is that of pieces which had no part in the weights."
    )
    return [f"<h2>Long contigs</h2><p>{text}</p>{number_table(header, rows)}"]
