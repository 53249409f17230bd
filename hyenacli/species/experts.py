"""What joins a species model: Markov models of genomes, and on long contigs what is fitted to long pieces.

A window says little of its species and a long contig much: k-mers that are fitted to long pieces, and weights
that are fitted there, say more of a contig than the mean of what was learnt from single windows.
"""

from collections.abc import Sequence

import numpy as np

from hyenacli import console
from hyenacli.adaptation.baseline import MIN_VALID
from hyenacli.adaptation.evaluation import Baseline, EvaluationResult, Logits, PieceJoint
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
        always: join all; else what predicts the validation pieces best: all, the experts without the network,
            or one of them. Not the network alone, whose training the same bases have chosen: it looks better
            on few pieces than it is.
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
    choices = [tuple(outputs)]
    if not always:
        choices += [tuple(models)] * (len(models) > 1) + [(kind,) for kind in models]
    joint = fit_joint(task, outputs, targets, choices, offsets=True)
    members = tuple(model for kind, model in models.items() if kind in joint.members)
    result = PieceJoint(len(pieces), joint, members)
    console.log.info("contigs of %s bases and more: %s", f"{pieces.length:,}", result.sentence)
    return result


def pieces_table(window: int, evaluation: EvaluationResult) -> list[str]:
    """Return the section of a report on what is joined at which length; none without long pieces."""
    if not evaluation.pieces or evaluation.joint is None:
        return []
    records = len(evaluation.splits["valid"].logits)
    joints = {window: (records, evaluation.joint)}
    joints |= {length: (part.count, part.joint) for length, part in evaluation.pieces.items()}
    choices = list(dict.fromkeys(name for _, joint in joints.values() for name in joint.losses))
    header = ["contigs from", "validation pieces", "joined", *(f"loss of {name}" for name in choices)]
    rows = [
        [f"{length:,}" if length > window else "the shortest", f"{count:,}", ", ".join(joint.members)]
        + [f"{joint.losses[name]:.3f}" if name in joint.losses else "-" for name in choices]
        for length, (count, joint) in joints.items()
    ]
    text = (
        f"Contigs are cut into pieces of the greatest of these lengths that they reach, or windows of "
        f"{window:,} bases. k-mers were fitted to training pieces of that length, and what is joined was "
        "chosen and weighted by validation pieces; a loss is that of pieces which had no part in the weights."
    )
    return [f"<h2>Long contigs</h2><p>{text}</p>{number_table(header, rows)}"]
