"""Experts saved beside a model, and their predictions joined with the network's.

N records, T outputs, E parts of experts, W windows.
"""

from collections import defaultdict
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
class Experts:
    """Models of words, and the weights with which their outputs join a network's.

    Attributes:
        models: one of a kind.
        weights: of the network, then of the parts of each model.
    """

    models: tuple[ExpertModel, ...]
    weights: JointWeights

    @property
    def title(self) -> str:
        """What the experts are, in the plural."""
        return " and ".join(_TITLES[type(model)] for model in self.models)

    def join(self, logits: Floats, sequences: Sequence[bytes]) -> Floats:
        """Join the outputs (N, T) of a network with those of the experts."""
        parts = [part for model in self.models for part in model.outputs(sequences)]
        return self.weights.apply([logits, *parts])

    def save(self, folder: Path) -> None:
        """Write the experts into a model directory: their arrays, and what they mean."""
        tensors: dict[str, torch.Tensor] = {}
        described: list[dict[str, Any]] = []
        for model in self.models:
            kind, arrays, facts = _encode(model)
            described.append({"kind": kind} | facts)
            # a solver may return the transpose of an array, which safetensors refuses
            tensors |= {
                f"{kind}.{name}": torch.from_numpy(np.ascontiguousarray(array))
                for name, array in arrays.items()
            }
        with atomic_path(folder / EXPERTS) as path:
            write_tensors(tensors, path)
        sha256 = file_sha256(folder / EXPERTS)
        facts = {"experts": described, "joint": asdict(self.weights), "arrays_sha256": sha256}
        with atomic_path(folder / FACTS) as path:
            path.write_text(seal(facts, readable=True) + "\n")


def _encode(model: ExpertModel) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the kind of a model, its arrays, and what else makes it again."""
    if isinstance(model, MarkovClassifier):
        arrays = {f"order-{order}": half for order, half in model.halves.items()}
        return "markov", arrays, {"window": model.window}
    linear = model.model
    arrays = {"weights": linear.weights_TF.astype(np.float32), "bias": linear.bias_T.astype(np.float32)}
    return (
        "kmers",
        arrays,
        {
            "task": model.task,
            "features": asdict(model.features),
            "penalty": model.penalty,
            "valid_loss": model.valid_loss,
        },
    )


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


def load_experts(folder: Path) -> Experts | None:
    """Load the experts of a model directory; None where it has none.

    Raises:
        UserError: one of its files is missing or damaged, or they are of two models.
    """
    if not (folder / FACTS).exists() and not (folder / EXPERTS).exists():
        return None
    facts: dict[str, Any] = read_sealed(folder / FACTS, _REMEDY)
    try:
        if file_sha256(folder / EXPERTS) != facts["arrays_sha256"]:
            raise ValueError(f"its hash is not the one in {FACTS}")
        arrays: dict[str, dict[str, Any]] = defaultdict(dict)
        for path, tensor in read_tensors(folder / EXPERTS).items():
            kind, _, name = path.partition(".")
            arrays[kind][name] = tensor.numpy()
        models = tuple(_decode(arrays[described["kind"]], described) for described in facts["experts"])
        joint = JointWeights(**{name: tuple(facts["joint"][name]) for name in ("factors", "bias")})
        return Experts(models, joint)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"the experts beside the network cannot be read ({error})"
        raise UserError(what, at=folder / EXPERTS, remedy=_REMEDY) from error


def open_experts(folder: Path) -> Experts | None:
    """Load the experts of a model directory, as `load_experts`, and log that they join the network."""
    if (experts := load_experts(folder)) is not None:
        log.info("the %s beside the network join its predictions", experts.title)
    return experts


def join_predictions(
    answers: Iterable[Predicted], experts: Experts | None, *, stranded: bool = False
) -> Iterator[Predicted]:
    """Join the predictions of a network with those of experts, in their order.

    Where the outputs of windows were averaged, the experts read the same windows.

    Args:
        answers: of the network, each with the bases of its record.
        experts: what joins it; None for nothing.
        stranded: records on the - strand are read as their reverse complement.
    """
    if experts is None:
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
            joined_WT = experts.join(answer.window_logits, parts)
            yield replace(answer, logits=joined_WT.mean(axis=0), window_logits=joined_WT)
            continue
        if stranded and answer.record.strand == "-":
            bases = reverse_complement(bases)
        yield replace(answer, logits=experts.join(answer.logits[None], [bases])[0])
