"""Experts saved beside a model, and their predictions joined with the network's.

N records, F features, T outputs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyenacli.errors import UserError
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.joining import JointWeights
from hyenacli.evaluation.kmers import KmerFeatures, KmerModel
from hyenacli.evaluation.linear import LinearModel
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.prediction import Predicted
from hyenacli.state_files import file_sha256, read_sealed, seal
from hyenacli.writers.atomic import atomic_path
from hyenadna.formats.files import read_tensors, write_tensors

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
        # a solver may return the transpose of an array, which safetensors refuses
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a, np.float32)) for name, a in arrays.items()}
        with atomic_path(folder / EXPERTS) as path:
            write_tensors(tensors, path)
        facts = {
            "kind": "kmers",
            "task": self.model.task,
            "features": asdict(self.model.features),
            "penalty": self.model.penalty,
            "valid_loss": self.model.valid_loss,
            "joint": asdict(self.weights),
            "arrays_sha256": file_sha256(folder / EXPERTS),
        }
        with atomic_path(folder / FACTS) as path:
            path.write_text(seal(facts, readable=True) + "\n")


def load_expert(folder: Path) -> KmerExpert | None:
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
        lengths = {name: tuple(facts["features"][name]) for name in ("lengths", "part_lengths")}
        features = KmerFeatures(**lengths, symmetric=bool(facts["features"]["symmetric"]))
        joint = JointWeights(**{**facts["joint"], "bias": tuple(facts["joint"]["bias"])})
        linear = LinearModel(float(facts["penalty"]), arrays["weights"], arrays["bias"])
        if linear.weights_TF.shape != (len(linear.bias_T), features.size):
            raise ValueError(f"weights of shape {linear.weights_TF.shape}")
        model = KmerModel(
            facts["task"], features, float(facts["penalty"]), float(facts["valid_loss"]), linear
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
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
