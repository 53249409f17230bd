"""README.md of a model directory: what the model is, which programs open it, and what not to do with it."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from hyenadna.model import HyenaDNA
from hyenadna.tokenizer import VOCABULARY

from .configs import CheckpointFormat, transformers_task

_TEMPLATE = """\
{metadata}# {name}

A HyenaDNA model: a causal language model of DNA, one token per nucleotide (Nguyen et al., arXiv 2306.15794).

| | |
|---|---|
| layout of the files | {layout} |
| width | {d_model} |
| layers | {n_layer} |
| longest input | {l_max:,} tokens |
| trainable parameters | {n_parameters:,} |
| filter window shift | {window_shift} |
| head | {head} |
| tokens, from 0 | {tokens} |

Bases are upper-cased, U is read as T, IUPAC codes as N. No start token is used. The model reads one strand
from left to right: score the reverse complement as well where the strand does not matter.

## Open it

{where}

With hyena, in any layout:

```sh
hyena models info {argument}
```

```python
import torch
from hyenadna import Tokenizer, load_model

model = load_model({literal})
with torch.no_grad():
    out = model(Tokenizer().encode("ACGT")[None])  # out.logits (1, 4, 16), out.hidden (1, 4, {d_model})
```
{loader}{provenance}"""

# Read by the Hub, which complains of cards without it.
_METADATA = """\
---
library_name: transformers
tags: [hyenadna, dna, genomics]
---

"""

_LAYOUTS = {
    "native": "native (hyena)",
    "hf": "Hugging Face port of HyenaDNA",
    "multimolecule": "MultiMolecule",
    "official": "official HyenaDNA code",
}

_TOKENS = {"multimolecule": ("<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "<null>", *"ACGTN")}

_HF = """
With Hugging Face transformers (4.57 or 5), also without internet: code and tokenizer are in the folder.

```python
import torch
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained({literal}, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained({literal})
batch = tokenizer(["ACGTACGT", "ACG"], padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**batch).logits
```

`AutoModel` gives the states after the final norm. `generate` of the language model chooses among A C G T.

## What not to do

* Do not leave out `trust_remote_code=True`: transformers has no HyenaDNA of its own.
* Do not pad on the left: the model reads padding there as a part of the sequence.
* Do not leave out the attention mask of a padded batch: a head would count the padding.
* Do not add [CLS] or [SEP]: hyena's models are trained and measured on bare bases.
* A model reads one strand. Where `hyena predict` averages both strands or windows, do so yourself.
"""

_MULTIMOLECULE = """
With MultiMolecule (`pip install multimolecule`):

```python
import torch
from multimolecule import DnaTokenizer, HyenaDnaForCausalLM

model = HyenaDnaForCausalLM.from_pretrained({literal}).eval()
tokenizer = DnaTokenizer.from_pretrained({literal})
ids = tokenizer(["ACGT"], return_tensors="pt")["input_ids"]
with torch.no_grad():
    logits = model(ids).logits
```

## What not to do

* Do not train MultiMolecule's own sequence heads (`HyenaDnaForSequencePrediction`) on it. They read the first
  token only, which in a causal model has seen nothing else, so they cannot learn. Fine-tune with
  `hyena finetune`, or take the mean of the last hidden states over the bases yourself.
* Do not use `DnaTokenizer()` without the files of this folder: by default it has 27 tokens for a model
  of 11, and adds `<cls>` and `<eos>`.
* Do not call `generate` with `use_cache=True`: every step after the first would see one token only, without a
  message. The folder's settings turn it off.
"""

_OFFICIAL = """
With the official code (https://github.com/HazyResearch/hyena-dna), unmodified, in Python started in its
folder; give the full path of the folder that holds `{name}`, as "/data/models":

```python
import os
import torch
from huggingface import HyenaDNAPreTrainedModel

folder = "/data/models"
assert os.path.isdir(os.path.join(folder, {literal}))
model = HyenaDNAPreTrainedModel.from_pretrained(folder, {literal}).eval()
ids = torch.tensor([[7, 8, 9, 10]])  # A C G T; N is 11
with torch.no_grad():
    hidden = model(ids)  # (1, 4, {d_model})
```

## What not to do

* Do not give the official loader a folder that is not there: it deletes that path and clones a repository of
  this name from huggingface.co instead. The `assert` above is for this.
* Do not pass `use_head=True`: the official loader takes the backbone only, and a head has **random weights**
  there. Predict with `hyena predict`.
* Do not use the tokens [CLS] and [SEP], which the official tokenizer adds: hyena's models see bare bases.
"""

_NATIVE = """
## What not to do

* Do not give this folder to transformers, MultiMolecule or the official code. Convert it for them, with
  `hyena models convert {argument} OUT --to hf`, `multimolecule` or `official`.
"""

_LOADERS = {"native": _NATIVE, "hf": _HF, "multimolecule": _MULTIMOLECULE, "official": _OFFICIAL}


def model_card(
    model: HyenaDNA,
    name: str,
    checkpoint_format: CheckpointFormat,
    provenance: Mapping[str, Any],
    *,
    published: bool = False,
) -> str:
    """Write the README.md of a model directory.

    Args:
        model: which the directory holds.
        name: of the directory, or of the repository on the Hub.
        checkpoint_format: of its files.
        provenance: facts about where the weights come from.
        published: whether the card is for the Hub.
    """
    config = model.config
    where = f"The commands stand in the folder that holds `{name}`."
    if published:
        where = "The commands download the model from the Hub when they are first run."
    rows = "".join(f"* {key}: {value}\n" for key, value in provenance.items())
    names = {
        "name": name,
        "argument": shlex.quote(name),
        "literal": json.dumps(name, ensure_ascii=False),
        "d_model": config.d_model,
        "auto_class": f"AutoModelFor{transformers_task(config.head)}",
    }
    return _TEMPLATE.format(
        metadata=_METADATA if published else "",
        where=where,
        layout=_LAYOUTS[checkpoint_format],
        n_layer=config.n_layer,
        l_max=config.l_max,
        n_parameters=model.n_parameters,
        window_shift=config.window_shift,
        head=_describe_head(model),
        tokens=f"`{' '.join(_TOKENS.get(checkpoint_format, VOCABULARY))}`",
        loader=_LOADERS[checkpoint_format].format(**names),
        provenance=f"\n## Provenance\n\n{rows}" if rows else "",
        **names,
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
