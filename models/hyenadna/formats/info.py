"""Descriptions of a model: its facts, and the model card beside native weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyenadna.adapters.methods import LoraConfig
from hyenadna.config import HyenaConfig
from hyenadna.model import HyenaDNA
from hyenadna.tokenizer import VOCABULARY

from .canonical import model_sha256
from .configs import CheckpointFormat
from .load import all_buffers, load_files
from .locate import locate

_TEMPLATE = """\
# {name}

A HyenaDNA model: a causal language model of DNA, one token per nucleotide (Nguyen et al., arXiv 2306.15794).

| | |
|---|---|
| width | {d_model} |
| layers | {n_layer} |
| longest input | {l_max:,} tokens |
| trainable parameters | {n_parameters:,} |
| filter window shift | {window_shift} |
| head | {head} |
| tokens | {tokens} |

Bases are upper-cased, U is read as T, IUPAC codes as N. No start token is used. The model reads one strand
from left to right: score the reverse complement as well where the strand does not matter.

```python
import torch
from hyenadna import Tokenizer, load_model

model = load_model("{name}")
with torch.no_grad():
    out = model(Tokenizer().encode("ACGT")[None])
```
{provenance}"""


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model.

    Attributes:
        weights: the file the tensors came from.
        checkpoint_format: of those files.
        config: architecture and head.
        context: the published context length in bases, l_max - 2.
        n_parameters: trainable numbers, exact, shared ones once.
        n_buffer_values: numbers in z, t and deltas of all layers, as files that keep them hold them.
        sha256: identity of the model, the same in every checkpoint format.
        adapter: which one it has, its sizes and its base; None without one.
    """

    weights: Path
    checkpoint_format: CheckpointFormat
    config: HyenaConfig
    context: int
    n_parameters: int
    n_buffer_values: int
    sha256: str
    adapter: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; of demonstrations their number, for their sequences would fill pages."""
        facts = asdict(self) | {"weights": str(self.weights)}
        if (shown := facts["config"]["demonstrations"]) is not None:
            shown["shots"] = len(shown["shots"])
        return facts


def describe(spec: str | Path) -> ModelInfo:
    """Load a model, as `load_model`, and describe it.

    Raises:
        ModelError: it cannot be loaded.
    """
    files = locate(spec)
    checkpoint_format, model = load_files(files)
    return ModelInfo(
        weights=files.weights,
        checkpoint_format=checkpoint_format,
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


def model_card(model: HyenaDNA, name: str, provenance: Mapping[str, Any]) -> str:
    """Write the README.md of a native model directory called `name`."""
    config = model.config
    rows = "".join(f"* {key}: {value}\n" for key, value in provenance.items())
    return _TEMPLATE.format(
        name=name,
        d_model=config.d_model,
        n_layer=config.n_layer,
        l_max=config.l_max,
        n_parameters=model.n_parameters,
        window_shift=config.window_shift,
        head=_describe_head(model),
        tokens=" ".join(VOCABULARY),
        provenance=f"\n## Provenance\n\n{rows}" if rows else "",
    )


def _describe_head(model: HyenaDNA) -> str:
    """Describe in a line what the model predicts."""
    head, demonstrations = model.config.head, model.config.demonstrations
    if demonstrations is not None:
        letters = zip(demonstrations.letters, demonstrations.labels, strict=True)
        classes = ", ".join(f"{letter} = {label}" for letter, label in letters)
        return f"none: a class is the next token ({classes}) after {len(demonstrations.shots)} demonstrations"
    if head is None:
        return "next nucleotide only"
    labels = f" ({', '.join(head.labels)})" if head.labels else ""
    where = f"{head.pool} pool" if head.level == "sequence" else "every position"
    return f"{head.task}, {head.n_outputs} outputs{labels}, {where}"
