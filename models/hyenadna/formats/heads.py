"""What the layouts say about a prediction head, or about demonstrations in place of one."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hyenadna.config import DemonstrationsConfig, HeadConfig, Task
from hyenadna.errors import ModelError

WEIGHT, BIAS = "head.output_transform.weight", "head.output_transform.bias"
_PROBLEMS: dict[object, Task] = {"regression": "regression", "multi_label_classification": "multilabel"}


def head_from_json(raw: Any, at: object) -> HeadConfig:
    """The head of a native config.json.

    Raises:
        ModelError: keys are missing, unknown, or have impossible values.
    """
    try:
        lists = {key: tuple(raw.get(key, ())) for key in ("labels", "center", "scale")}
        return HeadConfig(**{**raw, **lists})
    except (TypeError, AttributeError) as error:
        raise ModelError(f"head: {error}", at=at) from error
    except ModelError as error:
        raise ModelError(str(error), at=at) from None


def demonstrations_from_json(raw: Any, at: object) -> DemonstrationsConfig:
    """The demonstrations of a native config.json.

    Raises:
        ModelError: keys are missing, unknown, or have impossible values.
    """
    try:
        shots = tuple((sequence, label) for sequence, label in raw["shots"])
        return DemonstrationsConfig(**{**raw, "labels": tuple(raw["labels"]), "shots": shots})
    except ModelError as error:
        raise ModelError(str(error), at=at) from None
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"demonstrations: {error}", at=at) from error


def head_from_tensors(tensors: Mapping[str, Tensor], raw: Mapping[str, Any], at: object) -> HeadConfig | None:
    """The head a foreign checkpoint has, by its tensors and (Hugging Face) its labels.

    The number of outputs is the weight's. A decoder with bias is the official one, which averages all
    positions unless told otherwise; `score`, without bias, is the Hugging Face port's, which takes the
    last. The task is the one its output count suggests where nothing states it.
    """
    weight = tensors.get(WEIGHT)
    if weight is None or weight.ndim != 2:
        return None
    n = len(weight)
    guess: Task = "regression" if n == 1 else "binary" if n == 2 else "multiclass"
    has_bias = BIAS in tensors
    try:
        return HeadConfig(
            task=_PROBLEMS.get(raw.get("problem_type"), guess),
            n_outputs=n,
            labels=_labels(raw.get("id2label")),
            pool="mean" if has_bias else "last",
            bias=has_bias,
        )
    except ModelError as error:
        raise ModelError(str(error), at=at) from None


def _labels(id2label: object) -> tuple[str, ...]:
    """Names by index; the port's automatic LABEL_0, LABEL_1 ... are no names."""
    if not isinstance(id2label, Mapping):
        return ()
    named = {int(i): str(name) for i, name in id2label.items() if str(i).isdecimal()}
    labels = tuple(named[i] for i in sorted(named))
    return () if labels == tuple(f"LABEL_{i}" for i in range(len(labels))) else labels
