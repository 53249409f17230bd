"""Experts saved beside a model, and their predictions joined with the network's.

N records, T outputs, E parts of experts, W windows, P pieces of a record that is longer than a window.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from hyenacli.inference.embedding_options import even_windows
from hyenacli.inference.prediction import Predicted
from hyenacli.state_files import file_sha256, read_sealed, seal
from hyenacli.writers.atomic import atomic_path
from hyenadna.formats.files import read_tensors, write_tensors

ExpertModel = KmerModel | MarkovClassifier
EXPERTS = "experts.safetensors"
FACTS = "experts.json"
_REMEDY = "copy the model directory again, or train anew"
_MARKOV = "markov"
_TITLES = {KmerModel: "k-mers", MarkovClassifier: "Markov models"}


@dataclass(frozen=True)
class Experts:
    """Models of words, and the weights with which their outputs join a network's.

    Attributes:
        models: one of a kind.
        weights: of the network, then of the parts of each model.
        on_pieces: what joins the mean of the network over pieces of so many bases, longer than its window.
    """

    models: tuple[ExpertModel, ...]
    weights: JointWeights
    on_pieces: Mapping[int, "Experts"] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What the experts are, in the plural."""
        return " and ".join(_TITLES[type(model)] for model in self.models)

    def join(self, logits: Floats, sequences: Sequence[bytes]) -> Floats:
        """Join the outputs (N, T) of a network with those of the experts."""
        parts = [part for model in self.models for part in model.outputs(sequences)]
        return self.weights.apply([logits, *parts])

    def save(self, folder: Path) -> None:
        """Write the experts into a model directory: their arrays, and what they mean.

        Markov models are those of all lengths, and are written once.
        """
        tensors: dict[str, torch.Tensor] = {}
        facts = _describe(self, tensors)
        if self.on_pieces:
            facts["on_pieces"] = {
                str(length): _describe(part, tensors, length) for length, part in self.on_pieces.items()
            }
        with atomic_path(folder / EXPERTS) as path:
            write_tensors(tensors, path)
        facts["arrays_sha256"] = file_sha256(folder / EXPERTS)
        with atomic_path(folder / FACTS) as path:
            path.write_text(seal(facts, readable=True) + "\n")


def _describe(
    experts: Experts, tensors: dict[str, torch.Tensor], length: int | None = None
) -> dict[str, Any]:
    """Add the arrays of experts to those of a file, and return what they mean.

    Args:
        experts: of single windows, or of pieces of a length.
        tensors: the arrays, by their names in the file.
        length: of the pieces.
    """
    described: list[dict[str, Any]] = []
    for model in experts.models:
        kind, arrays, facts = _encode(model)
        described.append({"kind": kind} | facts)
        key = _key(kind, length)
        # a solver may return the transpose of an array, which safetensors refuses
        tensors |= {
            f"{key}.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
        }
    return {"experts": described, "joint": asdict(experts.weights)}


def _key(kind: str, length: int | None) -> str:
    """Return what the arrays of a model for pieces of a length are called; Markov models are those of all."""
    return kind if length is None or kind == _MARKOV else f"{kind}-{length}"


def _encode(model: ExpertModel) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the kind of a model, its arrays, and what else makes it again."""
    if isinstance(model, MarkovClassifier):
        arrays = {f"order-{order}": half for order, half in model.halves.items()}
        return _MARKOV, arrays, {"window": model.window}
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
    if facts["kind"] == _MARKOV:
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
            key, _, name = path.partition(".")
            arrays[key][name] = tensor.numpy()
        longer = facts.get("on_pieces", {})
        on_pieces = {n: _restore(arrays, longer[str(n)], n) for n in sorted(map(int, longer))}
        return replace(_restore(arrays, facts), on_pieces=on_pieces)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"the experts beside the network cannot be read ({error})"
        raise UserError(what, at=folder / EXPERTS, remedy=_REMEDY) from error


def _restore(
    arrays: Mapping[str, dict[str, Any]], facts: dict[str, Any], length: int | None = None
) -> Experts:
    """Return the experts that `_describe` has described."""
    models = tuple(_decode(arrays[_key(one["kind"], length)], one) for one in facts["experts"])
    joint = JointWeights(**{name: tuple(map(float, facts["joint"][name])) for name in ("factors", "bias")})
    parts = sum(len(model.orders) if isinstance(model, MarkovClassifier) else 1 for model in models)
    if len(joint.factors) != 1 + parts:
        raise ValueError(f"{len(joint.factors)} weights for {1 + parts} predictors")
    return Experts(models, joint)


def open_experts(folder: Path) -> Experts | None:
    """Load the experts of a model directory, as `load_experts`, and log that they join the network."""
    if (experts := load_experts(folder)) is not None:
        log.info("the %s beside the network join its predictions", experts.title)
    return experts


def join_predictions(
    answers: Iterable[Predicted], experts: Experts | None, *, stranded: bool = False
) -> Iterator[Predicted]:
    """Join the predictions of a network with those of experts, in their order.

    Where the outputs of windows were averaged, the experts read the same windows, and beside them the pieces
    of a longer record.

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
            yield _join_windows(answer, answer.window_logits, experts)
            continue
        if stranded and answer.record.strand == "-":
            bases = reverse_complement(bases)
        yield replace(answer, logits=experts.join(answer.logits[None], [bases])[0])


def _join_windows(answer: Predicted, logits_WT: Floats, experts: Experts) -> Predicted:
    """Join the outputs of windows, and their mean over the longest pieces that the record reaches.

    Pieces that are more than half N are left out, as such windows are.
    """
    record, bases = answer.record, answer.record.bases * (1 + answer.record.circular)
    joined_WT = experts.join(logits_WT, [bases[start:end] for start, end in answer.windows])
    # In half bases, and around a circle: a piece has the windows whose middle lies in it, or at its ends.
    middle_W = np.array([start + end for start, end in answer.windows])
    for length in sorted((n for n in experts.on_pieces if n <= len(record)), reverse=True):
        means, pieces = [], []
        for start, end in even_windows(len(record), length, length, circular=record.circular):
            inside_W = (middle_W - 2 * start) % (2 * len(record)) <= 2 * (end - start)
            if inside_W.any() and 2 * bases.count(b"N", start, end) <= end - start:
                means.append(logits_WT[inside_W].mean(axis=0))
                pieces.append(bases[start:end])
        if pieces:
            joined_PT = experts.on_pieces[length].join(np.stack(means), pieces)
            return replace(answer, logits=joined_PT.mean(axis=0), window_logits=joined_WT)
    return replace(answer, logits=joined_WT.mean(axis=0), window_logits=joined_WT)
