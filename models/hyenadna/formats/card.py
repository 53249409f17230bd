"""The model card written beside native weights."""

from collections.abc import Mapping
from typing import Any

from hyenadna.model import HyenaDNA
from hyenadna.tokenizer import VOCABULARY

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


def model_card(model: HyenaDNA, name: str, provenance: Mapping[str, Any]) -> str:
    """README.md of a native model directory called `name`."""
    config = model.config
    rows = "".join(f"* {key}: {value}\n" for key, value in provenance.items())
    return _TEMPLATE.format(
        name=name,
        d_model=config.d_model,
        n_layer=config.n_layer,
        l_max=config.l_max,
        n_parameters=model.n_parameters,
        window_shift=config.window_shift,
        head=head_in_words(model),
        tokens=" ".join(VOCABULARY),
        provenance=f"\n## Provenance\n\n{rows}" if rows else "",
    )


def head_in_words(model: HyenaDNA) -> str:
    """What the model predicts, in a line."""
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
