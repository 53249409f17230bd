#!/usr/bin/env bash
# MultiMolecule 0.2.2 predicts from the first base alone with HyenaDnaForSequencePrediction.
#
# The head of a sequence takes the state of the first token, as is right for BERT, whose first token sees all others.
# HyenaDNA is causal: the first state has seen the first base only, and its tokenizer puts no <cls> before it.
# Expected: logits that depend on the sequence, as with the last token or a mean.
# What happens: all sequences that begin with the same base have the same logits, whatever follows. Fine-tuning runs
# and its loss falls to that of guessing by the first base. Pool the hidden states by hand.
#
# Output seen:
#   200 sequences that begin with A: 1 answer
#   200 sequences that begin with C: 1 answer
#   their states at the last base: 194 different ones
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet torch==2.13.0 transformers==5.24.0 multimolecule==0.2.2 numpy==2.4.6
env/bin/python - 2>stderr.txt <<'PYTHON' || { tail -n 5 stderr.txt >&2; exit 1; }
import torch
from multimolecule import HyenaDnaConfig, HyenaDnaForSequencePrediction

torch.manual_seed(0)
config = HyenaDnaConfig(
    hidden_size=16, num_hidden_layers=2, intermediate_size=32, max_position_embeddings=64, num_labels=3
)
model = HyenaDnaForSequencePrediction(config).eval()
for first, base in ((6, "A"), (7, "C")):
    ids = torch.randint(6, 10, (200, 50))
    ids[:, 0] = first
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        states = model.model(input_ids=ids).last_hidden_state[:, -1]
    different = len({tuple(row.tolist()) for row in (logits * 1e5).round()})
    print(f"200 sequences that begin with {base}: {different} answer{'s' * (different > 1)}")
    assert different == 1
different = len({tuple(row.tolist()) for row in states})
print(f"their states at the last base: {different} different ones")
assert different > 100
PYTHON
