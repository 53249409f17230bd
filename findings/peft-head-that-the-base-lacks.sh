#!/usr/bin/env bash
# peft 0.21.2 leaves out a saved head, without a warning, where the base model that it is given has no such module.
#
# LoraConfig(modules_to_save=["head"]) trains a head beside the low-rank updates and saves it whole in the adapter.
# Expected: PeftModel.from_pretrained on the bare base says that it has no "head", or that tensors are left over.
# What happens: it returns a model with the low-rank updates and without the head, also with warnings as errors. The
# model runs, and predicts what its base does with a head of its own. Give the base its head before peft is called, and
# compare the names in adapter_model.safetensors with those of the model.
#
# Output seen:
#   saved: head.bias, head.weight
#   loaded: no head, 0 warnings
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet torch==2.13.0 transformers==5.24.0 peft==0.21.2 numpy==2.4.6
env/bin/python - 2>stderr.txt <<'PYTHON' || { tail -n 5 stderr.txt >&2; exit 1; }
import warnings

import peft
from safetensors import safe_open
from torch import nn


class Model(nn.Module):
    def __init__(self, has_head):
        super().__init__()
        self.body = nn.Linear(4, 4)
        if has_head:
            self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x)) if hasattr(self, "head") else self.body(x)


config = peft.LoraConfig(target_modules=["body"], modules_to_save=["head"])
peft.get_peft_model(Model(has_head=True), config).save_pretrained("adapter")
with safe_open("adapter/adapter_model.safetensors", "np") as file:
    saved = sorted(name.removeprefix("base_model.model.") for name in file.keys() if ".head." in name)
print("saved:", ", ".join(saved))
assert saved == ["head.bias", "head.weight"]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    loaded = peft.PeftModel.from_pretrained(Model(has_head=False), "adapter")
head = [name for name, _ in loaded.named_parameters() if "head" in name]
ours = [warning for warning in caught if "peft" in str(warning.filename)]
print(f"loaded: {', '.join(head) or 'no head'}, {len(ours)} warnings")
assert not head
assert not ours
PYTHON
