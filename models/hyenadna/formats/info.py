"""What a model on disk is."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyenadna.adapters.kinds import LoraConfig
from hyenadna.config import HyenaConfig
from hyenadna.model import HyenaDNA

from .canonical import model_sha256
from .configs import CheckpointFormat
from .load import all_buffers, load_files
from .locate import locate


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model.

    Attributes:
        weights: the file the tensors came from.
        layout: how it is written.
        config: architecture and head.
        context: the published context length in bases, l_max - 2.
        n_parameters: trainable numbers, exact, shared ones once.
        n_buffer_values: numbers in z, t and deltas of all layers, as files that keep them hold them.
        sha256: identity of the model, the same in every layout.
        adapter: which one it has, its sizes and its base; None without one.
    """

    weights: Path
    layout: CheckpointFormat
    config: HyenaConfig
    context: int
    n_parameters: int
    n_buffer_values: int
    sha256: str
    adapter: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; of demonstrations their number, for their sequences would fill pages."""
        facts = asdict(self) | {"weights": str(self.weights)}
        if (shown := facts["config"]["demonstrations"]) is not None:
            shown["shots"] = len(shown["shots"])
        return facts


def describe(spec: str | Path) -> ModelInfo:
    """Load a model, as `load_model`, and say what it is.

    Raises:
        ModelError: it cannot be loaded.
    """
    files = locate(spec)
    layout, model = load_files(files)
    return ModelInfo(
        weights=files.weights,
        layout=layout,
        config=model.config,
        context=model.config.context,
        n_parameters=model.n_parameters,
        n_buffer_values=sum(buffer.numel() for buffer in all_buffers(model).values()),
        sha256=model_sha256(model),
        adapter=_adapter(model),
    )


def _adapter(model: HyenaDNA) -> dict[str, Any] | None:
    if model.adapter is None:
        return None
    kind = "LoRA" if isinstance(model.adapter.config, LoraConfig) else "soft prompt"
    return {"kind": kind, **asdict(model.adapter.config), "base": model.adapter.base}
