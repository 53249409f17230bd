"""Experts saved beside a model, and their predictions joined with the network's.

N records, T outputs, E parts of an expert, W windows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyenacli.console import log
from hyenacli.errors import UserError
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.joining import JointWeights
from hyenacli.evaluation.kmers import KmerFeatures, KmerModel
from hyenacli.evaluation.linear import LinearModel
from hyenacli.evaluation.markov import MarkovClassifier
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.prediction import Predicted
from hyenacli.state_files import file_sha256, read_sealed, seal
from hyenacli.writers.atomic import atomic_path
from hyenadna.formats.files import read_tensors, write_tensors

ExpertModel = KmerModel | MarkovClassifier
EXPERTS = "experts.safetensors"
FACTS = "experts.json"
_REMEDY = "copy the model directory again, or train anew"
_TITLES = {KmerModel: "k-mers", MarkovClassifier: "Markov models"}


@dataclass(frozen=True)
class Expert:
    """A model of words, and the weights with which its outputs join a network's."""

    model: ExpertModel
    weights: JointWeights

    @property
    def title(self) -> str:
        """What the expert is, in the plural."""
        return _TITLES[type(self.model)]

    def join(self, logits: Floats, sequences: Sequence[bytes]) -> Floats:
        """Join the outputs (N, T) of a network with those of the expert."""
        return self.weights.apply([logits, *self.model.outputs(sequences)])

    def save(self, folder: Path) -> None:
        """Write the expert into a model directory: its arrays, and what they mean."""
        arrays, facts = _encode(self.model)
        # a solver may return the transpose of an array, which safetensors refuses
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        with atomic_path(folder / EXPERTS) as path:
            write_tensors(tensors, path)
        facts |= {"joint": asdict(self.weights), "arrays_sha256": file_sha256(folder / EXPERTS)}
        with atomic_path(folder / FACTS) as path:
            path.write_text(seal(facts, readable=True) + "\n")


def _encode(model: ExpertModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays of a model, and what else makes it again."""
    if isinstance(model, MarkovClassifier):
        arrays = {f"order-{order}": half for order, half in model.halves.items()}
        return arrays, {"kind": "markov", "window": model.window}
    linear = model.model
    arrays = {"weights": linear.weights_TF.astype(np.float32), "bias": linear.bias_T.astype(np.float32)}
    return arrays, {
        "kind": "kmers",
        "task": model.task,
        "features": asdict(model.features),
        "penalty": model.penalty,
        "valid_loss": model.valid_loss,
    }


def _decode(arrays: dict[str, Any], facts: dict[str, Any]) -> ExpertModel:
    """Return the model of `_encode`; raise ValueError, KeyError or TypeError where there is none."""
    if facts["kind"] == "markov":
        by_order = {int(name.removeprefix("order-")): half for name, half in arrays.items()}
        ascending = {order: by_order[order] for order in sorted(by_order)}
        return MarkovClassifier(ascending, int(facts["window"]))
    lengths = {name: tuple(facts["features"][name]) for name in ("lengths", "part_lengths")}
    features = KmerFeatures(**lengths, symmetric=bool(facts["features"]["symmetric"]))
    linear = LinearModel(float(facts["penalty"]), arrays["weights"], arrays["bias"])
    if linear.weights_TF.shape != (len(linear.bias_T), features.size):
        raise ValueError(f"weights of shape {linear.weights_TF.shape}")
    return KmerModel(facts["task"], features, float(facts["penalty"]), float(facts["valid_loss"]), linear)


def load_expert(folder: Path) -> Expert | None:
    """Load the expert of a model directory; None where it has none.

    Raises:
        UserError: one of its files is missing or damaged, or they are of two models.
    """
    if not (folder / FACTS).exists() and not (folder / EXPERTS).exists():
        return None
    facts: dict[str, Any] = read_sealed(folder / FACTS, _REMEDY)
    try:
        if file_sha256(folder / EXPERTS) != facts["arrays_sha256"]:
            raise ValueError(f"its hash is not the one in {FACTS}")
        arrays = {name: tensor.numpy() for name, tensor in read_tensors(folder / EXPERTS).items()}
        joint = JointWeights(**{name: tuple(facts["joint"][name]) for name in ("factors", "bias")})
        return Expert(_decode(arrays, facts), joint)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"the expert beside the network cannot be read ({error})"
        raise UserError(what, at=folder / EXPERTS, remedy=_REMEDY) from error


def open_expert(folder: Path) -> Expert | None:
    """Load the expert of a model directory, as `load_expert`, and log that it joins the network."""
    if (expert := load_expert(folder)) is not None:
        log.info("the %s beside the network join its predictions", expert.title)
    return expert


def join_predictions(
    answers: Iterable[Predicted], expert: Expert | None, *, stranded: bool = False
) -> Iterator[Predicted]:
    """Join the predictions of a network with those of an expert, in their order.

    Where the outputs of windows were averaged, the expert reads the same windows.

    Args:
        answers: of the network, each with the bases of its record.
        expert: what joins it; None for nothing.
        stranded: records on the - strand are read as their reverse complement.
    """
    if expert is None:
        yield from answers
        return
    for answer in answers:
        if answer.logits is None:
            yield answer
            continue
        bases = answer.record.bases
        if answer.window_logits is not None:
            if answer.windows[-1][1] > len(bases):  # a window of a circle goes on at its start
                bases *= 2
            parts = [bases[start:end] for start, end in answer.windows]
            joined_WT = expert.join(answer.window_logits, parts)
            yield replace(answer, logits=joined_WT.mean(axis=0), window_logits=joined_WT)
            continue
        if stranded and answer.record.strand == "-":
            bases = reverse_complement(bases)
        yield replace(answer, logits=expert.join(answer.logits[None], [bases])[0])
