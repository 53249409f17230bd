"""The table of methods: defaults, flags of one method alone, and what each trains."""

from pathlib import Path
from typing import Any

import pytest

from hyenacli.adaptation.labels import LabelScheme
from hyenacli.adaptation.methods import METHODS, build_model, head_config, parameter_groups
from hyenacli.errors import UsageError
from hyenacli.finetune.command import with_defaults
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.settings_file import to_yaml
from tests.finetunes import base_model

SCHEME = LabelScheme("binary", "sequence", ("no", "yes"))
ADAPTED = {"lora": "lora_", "soft-prompt": "backbone.prompt."}


def chosen(model: Path, **changes: Any) -> FinetuneSettings:
    """Settings without any training flag but those of `changes`."""
    return with_defaults(
        FinetuneSettings(data=["x.csv"], model=str(model), output=Path("run"), **changes), "cuda"
    )


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_those_of_the_method_and_given_values_stay(name: str) -> None:
    method = METHODS[name]
    filled = chosen(Path("model"), method=name, batch_size=3)  # a flag of steps
    assert filled.batch_size == 3
    assert {flag: getattr(filled, flag) for flag in method.defaults} == {**method.defaults, "batch_size": 3}
    assert all(getattr(filled, flag) is not None for flag in method.flags)


def test_heads_are_solved_and_models_on_a_cpu_trained_briefly_unless_flags_say_otherwise() -> None:
    def filled(**changes: Any) -> FinetuneSettings:
        data = FinetuneSettings(data=["x.csv"], model="model", output=Path("run"), **changes)
        return with_defaults(data, "cpu")

    assert (filled().epochs, filled().batch_size, filled(epochs=3).epochs) == (10, 32, 3)
    assert (filled(method="icl").epochs, filled(method="soft-prompt").batch_size) == (1, 16)
    assert filled(method="head").solver == "sklearn"
    assert (
        filled(method="head", epochs=3).solver == filled(method="head", level="nucleotide").solver == "adamw"
    )


def test_a_run_resumes_with_its_defaults_on_another_device(tmp_path: Path) -> None:
    settings = FinetuneSettings(data=["x.csv"], model="model", output=tmp_path, resume=True)
    (tmp_path / "config.yaml").write_text(to_yaml(with_defaults(settings, "cuda")))
    assert with_defaults(settings, "cpu") == with_defaults(settings, "cuda")


def test_alpha_of_lora_is_twice_the_rank() -> None:
    assert chosen(Path("model"), method="lora", lora_rank=3).lora_alpha == 6
    assert chosen(Path("model"), method="lora", lora_rank=3, lora_alpha=1.0).lora_alpha == 1


@pytest.mark.parametrize(
    ("flag", "owner"), [(flag, name) for name, method in METHODS.items() for flag in method.flags]
)
def test_a_flag_of_another_method_is_refused(flag: str, owner: str) -> None:
    with pytest.raises(UsageError, match=f"belongs to --method {owner}"):
        chosen(Path("model"), method="head" if owner != "head" else "full", **{flag: 1})


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_its_parameters_and_no_others(name: str, tmp_path: Path) -> None:
    prompt = {"prompt_tokens": 2} if name == "soft-prompt" else {}
    settings = chosen(base_model(tmp_path / "model"), method=name, **prompt)
    model = build_model(settings, head_config(settings, SCHEME))
    groups = parameter_groups(settings, model)
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(trained)
    assert (model.head is None) == (name == "icl")
    if name in ("full", "icl"):
        assert trained == {key for key, _ in model.named_parameters()}
        return
    added = {key for key in trained if not key.startswith("head.")}
    assert {key for key, _ in model.named_parameters() if key.startswith("head.")} == trained - added
    assert all(ADAPTED[name] in key for key in added)
    assert bool(added) == (name in ADAPTED)
