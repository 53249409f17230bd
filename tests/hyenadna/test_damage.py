"""Damaged files of models: every one is an error in one line, or changes nothing."""

import json
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hyenadna import (
    HyenaConfig,
    HyenaDNA,
    LoraConfig,
    ModelError,
    SoftPromptConfig,
    add_lora,
    add_soft_prompt,
    convert,
    load_model,
    model_sha256,
    save_adapter,
    save_model,
)
from hyenadna.config import HeadConfig

HEAD = HeadConfig("multiclass", 3, ("a", "b", "c"))
# kind of file: the directory, the file in it, and whether what is damaged there cannot go unnoticed
FILES = {
    "native weights": ("native", "model.safetensors", True),
    "native configuration": ("native", "config.json", True),
    "LoRA weights": ("lora", "adapter_model.safetensors", True),
    "LoRA configuration": ("lora", "adapter_config.json", True),
    "LoRA, what peft does not know": ("lora", "hyena_adapter.json", True),
    "soft prompt weights": ("prompt", "adapter_model.safetensors", True),
    "soft prompt configuration": ("prompt", "adapter_config.json", True),
    "Hugging Face weights": ("hf", "model.safetensors", True),
    "Hugging Face configuration": ("hf", "config.json", False),
    "Hugging Face bin": ("bin", "pytorch_model.bin", True),
    "official checkpoint": ("official", "weights.ckpt", True),
    "official configuration": ("official", "config.json", False),
    "legacy checkpoint": ("legacy", "weights.ckpt", False),
    "MultiMolecule weights": ("multimolecule", "model.safetensors", True),
    "MultiMolecule configuration": ("multimolecule", "config.json", False),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in every checkpoint format."""
    folder = tmp_path_factory.mktemp("models")
    config = HyenaConfig(d_model=2, n_layer=1, d_inner=4, l_max=6, filter_order=2, emb_dim=3, n_inner_mlps=1)
    model = HyenaDNA(config, generator=torch.Generator().manual_seed(0))
    save_model(model, folder / "bare")
    for name in ("hf", "official", "multimolecule"):
        convert(folder / "bare", folder / name, name)
    for name, source, zipped in (("bin", "hf", True), ("legacy", "official", False)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_bytes((folder / source / "config.json").read_bytes())
        file = folder / name / FILES["Hugging Face bin" if zipped else "legacy checkpoint"][1]
        if zipped:
            torch.save(load_file(folder / "hf" / "model.safetensors"), file)
        else:
            weights = torch.load(folder / "official" / "weights.ckpt")
            torch.save(weights, file, _use_new_zipfile_serialization=False)
    model.set_head(HEAD)
    save_model(model, folder / "native")
    add_lora(model, LoraConfig(rank=1), base=str(folder / "bare"))
    save_adapter(model, folder / "lora")
    model = load_model(folder / "bare")
    add_soft_prompt(model, SoftPromptConfig(2), base=str(folder / "bare"))
    save_adapter(model, folder / "prompt")
    return folder


def identity(folder: Path) -> Any:
    """Return everything of a model that can reach a result."""
    model = load_model(folder)
    return model_sha256(model), model.config, model.adapter


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Flip a bit, or cut: four in five are flips."""
    if rng.randrange(5) == 0:
        return content[: rng.randrange(len(content))]
    position = rng.randrange(len(content))
    return content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :]


def attack(models: Path, tmp_path: Path, kind: str, count: int, seed: int) -> None:
    """Load damaged copies of a file: each is refused in a line, or is the same model."""
    name, file, checked = FILES[kind]
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in (models / name).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content, sound, rng = (folder / file).read_bytes(), identity(folder), random.Random(seed)
    for attempt in range(count):
        (folder / file).write_bytes(damaged(content, rng))
        try:
            read = identity(folder)
        except ModelError as error:
            message = str(error)
            assert "\n" not in message, (attempt, message)
            assert len(message) < 1000, (attempt, message)
        else:
            assert read == sound or not checked, f"{kind}: damage {attempt} of seed {seed} goes unnoticed"


@pytest.mark.parametrize("kind", FILES)
def test_damage_is_noticed(models: Path, tmp_path: Path, kind: str) -> None:
    attack(models, tmp_path, kind, 30, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_damage_is_noticed_for_long(models: Path, tmp_path: Path, kind: str) -> None:
    attack(models, tmp_path, kind, 20_000 // len(FILES), seed=2)


def edit(folder: Path, change: Callable[[dict[str, Any]], object], file: str = "config.json") -> Path:
    """Change a configuration as a user would who deletes its checksum."""
    raw = json.loads((folder / file).read_text())
    raw.pop("sha256", None)
    change(raw)
    (folder / file).write_text(json.dumps(raw))
    return folder


def copy(models: Path, name: str, tmp_path: Path) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    for path in (models / name).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_model_without_a_checksum_loads(models: Path, tmp_path: Path) -> None:
    """As those of version 0.1.0 are."""
    folder = edit(copy(models, "native", tmp_path), lambda raw: None)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    assert identity(folder) == identity(models / "native")


def test_an_edited_configuration_says_how_to_keep_it(models: Path, tmp_path: Path) -> None:
    file = copy(models, "native", tmp_path) / "config.json"
    file.write_text(file.read_text().replace('"window_shift": 0.05', '"window_shift": 0.0'))
    with pytest.raises(ModelError, match=r'if you edited it, delete its line "sha256"'):
        load_model(file.parent)
    assert load_model(edit(file.parent, lambda raw: None)).config.window_shift == 0


SIZES = ("d_model", "n_layer", "d_inner", "l_max", "vocab_size", "pad_vocab_multiple", "emb_dim")
MORE_SIZES = ("filter_order", "n_inner_mlps", "short_filter_order")


@pytest.mark.parametrize(
    "value", [10**6 + 1, 2**24 - 1, 2**31, 10**12, 10**30, -1, True, None, "9", 9.0, [9]]
)
@pytest.mark.parametrize("key", [*SIZES, *MORE_SIZES])
def test_absurd_sizes_take_no_memory(models: Path, tmp_path: Path, key: str, value: Any) -> None:
    folder = edit(copy(models, "native", tmp_path), lambda raw: raw["architecture"].update({key: value}))
    if key == "l_max" and type(value) is int and 0 < value < 2**24:
        return  # a long context has no larger tensors
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("architecture", "layer_norm_eps", float("nan")),
        ("architecture", "window_shift", float("inf")),
        ("architecture", "activation_freq", 10**400),
        ("architecture", "tied_head", "no"),
        ("head", "n_outputs", 10**12),
        ("head", "n_outputs", "3"),
        ("head", "window", "all"),
        ("head", "labels", "abc"),
        ("head", "labels", [1, 2, 3]),
        ("head", "labels", {"a": 1}),
        ("head", "center", ["a", "b", "c"]),
        ("head", "rc", "yes"),
        ("head", "task", ["multiclass"]),
        ("head", "pool", "x" * 100_000),
    ],
)
def test_absurd_values(models: Path, tmp_path: Path, table: str, key: str, value: Any) -> None:
    folder = edit(copy(models, "native", tmp_path), lambda raw: raw[table].update({key: value}))
    with pytest.raises(ModelError, match=r"config\.json|model\.safetensors") as caught:
        load_model(folder)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("hf", "problem_type", ["x"]),
        ("hf", "id2label", {"9" * 5000: "a", "x": "b"}),
        ("hf", "id2label", [1]),
        ("official", "d_model", 10**30),
        ("multimolecule", "num_hidden_layers", 10**9),
        ("hf", "model_type", "x" * 100_000),
        ("hf", "model_type", ["hyenadna"]),
    ],
)
def test_absurd_values_of_others(models: Path, tmp_path: Path, name: str, key: str, value: Any) -> None:
    folder = edit(copy(models, name, tmp_path), lambda raw: raw.update({key: value}))
    if key in ("problem_type", "id2label"):
        load_model(folder)  # of a head that it does not have
        return
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("to", ["native", "hf", "official", "multimolecule"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    models: Path, tmp_path: Path, to: Any, file_size_limit: Callable[[int], None]
) -> None:
    out = tmp_path / "out"
    file_size_limit(500)
    with pytest.raises(ModelError, match=f"{out}: cannot be written"):
        convert(models / "bare", out, to)
    file_size_limit(-1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Set the size at which the system refuses to write more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
