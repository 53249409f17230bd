"""Experts saved beside a model, and their predictions joined with the network's.

N records, F features, T outputs.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from hyenacli.errors import UserError
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.joining import JointWeights
from hyenacli.evaluation.kmers import KmerFeatures, KmerModel
from hyenacli.evaluation.linear import LinearModel
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.prediction import Predicted
from hyenacli.writers.atomic import atomic_path
from hyenadna.formats.files import write_tensors

EXPERTS = "experts.safetensors"
FACTS = "experts.json"
_REMEDY = "copy the model directory again, or train anew"


@dataclass(frozen=True)
class KmerExpert:
    """A k-mer model, and the weights with which it joins a network."""

    model: KmerModel
    weights: JointWeights

    def join(self, logits: Floats, sequences: list[bytes]) -> Floats:
        """Join the outputs (N, T) of a network with those of the k-mer model."""
        return self.weights.apply(logits, self.model.logits(sequences))

    def save(self, folder: Path) -> None:
        """Write the expert into a model directory: two arrays, and what they mean."""
        linear = self.model.model
        arrays = {"weights": linear.weights_TF, "bias": linear.bias_T}
        with atomic_path(folder / EXPERTS) as path:
            write_tensors({name: torch.from_numpy(np.float32(array)) for name, array in arrays.items()}, path)
        facts = {
            "kind": "kmers",
            "task": self.model.task,
            "features": asdict(self.model.features),
            "penalty": self.model.penalty,
            "valid_loss": self.model.valid_loss,
            "joint": asdict(self.weights),
        }
        with atomic_path(folder / FACTS) as path:
            path.write_text(json.dumps(facts, indent=1) + "\n")


def load_expert(folder: Path) -> KmerExpert | None:
    """Load the expert of a model directory; None where it has none.

    Raises:
        UserError: its files are damaged.
    """
    if not (folder / FACTS).is_file():
        return None
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
        with safe_open(folder / EXPERTS, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in ("weights", "bias")}
        lengths = {name: tuple(facts["features"][name]) for name in ("lengths", "part_lengths")}
        features = KmerFeatures(**lengths, symmetric=bool(facts["features"]["symmetric"]))
        joint = JointWeights(**{**facts["joint"], "bias": tuple(facts["joint"]["bias"])})
        linear = LinearModel(float(facts["penalty"]), arrays["weights"], arrays["bias"])
        if linear.weights_TF.shape != (len(linear.bias_T), features.size):
            raise ValueError(f"weights of shape {linear.weights_TF.shape}")
        model = KmerModel(
            facts["task"], features, float(facts["penalty"]), float(facts["valid_loss"]), linear
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        what = f"the k-mer model beside the network cannot be read ({error})"
        raise UserError(what, at=folder / EXPERTS, remedy=_REMEDY) from error
    return KmerExpert(model, joint)


def join_predictions(
    answers: Iterable[Predicted], expert: KmerExpert, *, stranded: bool = False
) -> Iterator[Predicted]:
    """Join the predictions of a network with those of an expert, in their order.

    Args:
        answers: of the network, each with the bases of its record.
        expert: what joins it.
        stranded: records on the - strand are read as their reverse complement.
    """
    for answer in answers:
        if answer.logits is None:
            yield answer
            continue
        bases = answer.record.bases
        if stranded and answer.record.strand == "-":
            bases = reverse_complement(bases)
        yield replace(answer, logits=expert.join(answer.logits[None], [bases])[0])
