"""Open exports of ours in the libraries they are for; run by test_foreign_loaders.py in their environment.

python foreign_loaders.py CHECK FOLDER, where FOLDER has native models, written by the test, by name.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

import hyenadna

IDS_BL = torch.randint(7, 12, (3, 77), generator=torch.Generator().manual_seed(0))
MASK_BL = torch.ones_like(IDS_BL)
IDS_BL[1, 60:], MASK_BL[1, 60:] = 4, 0
SPELLINGS = "acgtuRN.ACGT-x"


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def ours(folder: Path) -> torch.Tensor:
    out = hyenadna.load_model(folder)(IDS_BL, mask_BL=MASK_BL)
    return out.logits if out.head_logits is None else out.head_logits


@torch.no_grad()
def check_transformers(folder: Path) -> None:
    """Logits, what is saved again, hidden states, tokens and generation."""
    import transformers
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    for native in folder.glob("*-native"):
        export = native.with_name(native.name.replace("native", "hf"))
        hyenadna.convert(native, export, "hf")
        [kind] = transformers.AutoConfig.from_pretrained(export, trust_remote_code=True).architectures
        auto = getattr(transformers, kind.replace("HyenaDNA", "AutoModel"))
        model = auto.from_pretrained(export, trust_remote_code=True).eval()
        expected = ours(native)
        close(model(input_ids=IDS_BL, attention_mask=MASK_BL).logits, expected)
        model.save_pretrained(export / "again")
        again = auto.from_pretrained(export / "again", trust_remote_code=True).eval()
        close(again(input_ids=IDS_BL, attention_mask=MASK_BL).logits, expected)
        close(ours(export / "again"), expected)
        backbone = AutoModel.from_pretrained(export, trust_remote_code=True).eval()
        close(backbone(IDS_BL).last_hidden_state, hyenadna.load_model(native).hidden(IDS_BL))
    export = folder / "lm-hf"
    tokenizer = AutoTokenizer.from_pretrained(export)
    assert tokenizer(SPELLINGS)["input_ids"] == hyenadna.Tokenizer().encode(SPELLINGS).tolist()
    assert tokenizer.decode(tokenizer("ACGTN")["input_ids"]) == "ACGTN"
    model = AutoModelForCausalLM.from_pretrained(export, trust_remote_code=True).eval()
    prompt = tokenizer("ACGTACGTTG", return_tensors="pt")
    generated = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert torch.equal(generated, _greedy(hyenadna.load_model(export), prompt["input_ids"]))
    with torch.enable_grad():
        model.train()(input_ids=IDS_BL, labels=IDS_BL).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def _greedy(model: hyenadna.HyenaDNA, ids_BL: torch.Tensor) -> torch.Tensor:
    for _ in range(12):
        best_B = model(ids_BL).logits[:, -1, 7:11].argmax(-1) + 7
        ids_BL = torch.cat([ids_BL, best_B[:, None]], 1)
    return ids_BL


@torch.no_grad()
def check_multimolecule(folder: Path) -> None:
    """Logits, tokens, generation, reading what MultiMolecule saves; transformers' export beside it."""
    from multimolecule import (
        DnaTokenizer,
        HyenaDnaForCausalLM,
        HyenaDnaForSequencePrediction,
        HyenaDnaForTokenPrediction,
        HyenaDnaModel,
    )
    from transformers import AutoTokenizer, pipeline

    native, export = folder / "shift-native", folder / "multimolecule"
    hyenadna.convert(native, export, "multimolecule")
    model = HyenaDnaForCausalLM.from_pretrained(export).eval()
    for kind in (DnaTokenizer, AutoTokenizer):
        tokenizer: Any = kind.from_pretrained(export)
        batch = tokenizer(["ACGTN", "ACG"], padding=True, return_tensors="pt")
        assert batch["input_ids"].tolist() == [[6, 7, 8, 9, 10], [6, 7, 8, 0, 0]]
        assert len(tokenizer) == 11
    reference = hyenadna.load_model(native)
    logits = reference(hyenadna.Tokenizer().encode("ACGTN")[None]).logits[..., 7:12]
    close(model(batch["input_ids"][:1]).logits[..., 6:11], logits)
    prompt = tokenizer("ACGTACGTTG", return_tensors="pt")
    generated = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    assert generated.shape == (1, 11)
    made = pipeline("text-generation", model=model, tokenizer=tokenizer)(
        "ACGTACGTTG", max_new_tokens=4, do_sample=False
    )
    assert made[0]["generated_text"].replace(" ", "").startswith("ACGTACGTTG")
    for kind in (
        HyenaDnaForCausalLM,
        HyenaDnaModel,
        HyenaDnaForSequencePrediction,
        HyenaDnaForTokenPrediction,
    ):
        saved = folder / kind.__name__
        kind.from_pretrained(export).save_pretrained(saved)
        if kind.__name__.endswith("Prediction"):
            try:
                hyenadna.load_model(saved)
            except hyenadna.ModelError as error:
                assert "--drop-head" in str(error)  # noqa: PT017  (these environments lack pytest)
            else:
                raise AssertionError("a head that hyena does not compute is refused")
            hyenadna.convert(saved, saved.with_suffix(".native"), "native", drop_head=True)
            saved = saved.with_suffix(".native")
        close(hyenadna.load_model(saved).hidden(IDS_BL), reference.hidden(IDS_BL))
    check_transformers(folder)


def check_peft(folder: Path) -> None:
    """An adapter of ours: opened without a warning, in training and in inference."""
    import warnings

    import peft

    adapter, ours_model = folder / "adapter", hyenadna.load_model(folder / "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = peft.PeftModel.from_pretrained(_bare(folder), str(adapter), is_trainable=True)
    with torch.no_grad():
        close(theirs.eval()(IDS_BL).head_logits, ours_model(IDS_BL).head_logits)
    theirs.train()(IDS_BL).head_logits.sum().backward()
    lora = [parameter for name, parameter in theirs.named_parameters() if "lora_" in name]
    assert lora
    assert all(parameter.grad is not None for parameter in lora)
    with torch.no_grad():
        merged = theirs.eval().merge_and_unload()
        close(merged(IDS_BL).head_logits, ours_model(IDS_BL).head_logits)
    _train_on(peft.PeftModel.from_pretrained(_bare(folder), str(adapter), is_trainable=True), folder)


def _bare(folder: Path) -> hyenadna.HyenaDNA:
    """Return the base of the adapter, with an untrained head of its kind."""
    bare = hyenadna.load_model(folder / "lm-native")
    bare.set_head(hyenadna.load_model(folder / "adapter").config.head)
    return bare


def _train_on(model: Any, folder: Path) -> None:
    """Take steps with an adapter of ours in peft, and read what peft saves of it."""
    optimizer = torch.optim.Adam([p for name, p in model.named_parameters() if "lora_" in name], lr=1e-2)
    targets_B = torch.tensor([0, 1, 2])
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(model.train()(IDS_BL).head_logits, targets_B)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    model.save_pretrained(folder / "trained", save_embedding_layers=False)
    config = folder / "trained" / "adapter_config.json"
    head = json.loads((folder / "adapter" / "hyena_adapter.json").read_text())["head"]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"head": head}))
    again = hyenadna.load_model(folder / "trained", base=folder / "lm-native")
    with torch.no_grad():
        close(again(IDS_BL).head_logits, model.eval()(IDS_BL).head_logits)


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](Path(sys.argv[2]))
