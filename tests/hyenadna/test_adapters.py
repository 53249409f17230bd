"""LoRA and soft prompts: equal to the plain model in every engine, and the same after a round trip."""

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import register_parametrization

from hyenadna import (
    Decoder,
    HeadConfig,
    HyenaConfig,
    HyenaDNA,
    LoraConfig,
    ModelError,
    SoftPromptConfig,
    add_lora,
    add_soft_prompt,
    convert,
    describe,
    freeze,
    generate,
    load_model,
    merge,
    model_sha256,
    save_adapter,
    save_model,
    verify,
)
from hyenadna.engine import inference, training
from hyenadna.engine.inference import token_log_probs
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.engine.tiling import Tiling
from hyenadna.engine.training import IGNORED, next_bases, next_token_loss
from hyenadna.heads import pool

EXACT = {"rtol": 0, "atol": 1e-10}
PIECES = Tiling(tokens=7, samples=60, block=16, min_channels=3, row_tokens=25)
N_SOFT = 5
HEAD = HeadConfig(task="binary", n_outputs=2, labels=("no", "yes"))
KINDS = ["lora", "soft-prompt"]


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


def adapt(model: HyenaDNA, kind: str, base: str = "base", *, dropout: float = 0.0) -> HyenaDNA:
    """A model with an adapter that changes its answers."""
    generator = torch.Generator().manual_seed(3)
    if kind == "lora":
        add_lora(model, LoraConfig(rank=3, alpha=5, dropout=dropout), base=base, generator=generator)
    else:
        add_soft_prompt(model, SoftPromptConfig(N_SOFT, dropout), base=base, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name or ".prompt." in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "training_tiling", lambda *_: PIECES)
    monkeypatch.setattr(inference, "tiling", lambda *_: PIECES)


@pytest.fixture(params=KINDS)
def adapted(request: pytest.FixtureRequest, model: HyenaDNA) -> HyenaDNA:
    return adapt(model.double(), request.param)


def by_hand(model: HyenaDNA, ids_BL: Tensor) -> Tensor:
    """The logits of a model with an adapter, by the plain model without one."""
    config = model.adapter.config
    bare = HyenaDNA(model.config).double().eval()
    state = model.state_dict()
    for name in bare.state_dict():
        bare.state_dict()[name].copy_(state[name])
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" in state:
            change = state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"]
            bare.state_dict()[name].add_(change, alpha=config.alpha / config.rank)
    x_BLD = bare.backbone.embed(ids_BL)
    if isinstance(config, SoftPromptConfig):
        vectors_BnD = state["backbone.prompt.vectors"][None].expand(len(x_BLD), -1, -1)
        x_BLD = torch.cat([vectors_BnD, x_BLD], dim=1)
    hidden_BLD, _ = bare.backbone(x_BLD)
    return bare.lm_logits(hidden_BLD)[:, -ids_BL.shape[1] :].detach()


# What the engines compute


@pytest.mark.usefixtures("small_pieces")
def test_every_way_of_reading_gives_what_the_definition_does(adapted: HyenaDNA) -> None:
    ids, targets = tokens(3, 30), tokens(3, 30, seed=1)
    expected = by_hand(adapted, ids)
    with torch.no_grad():
        plain = adapted.plain(ids, hidden_states=True)
        read = adapted(ids, hidden_states=True)
    trained = adapted(ids, hidden_states=True)
    for out in (plain, read, trained):
        torch.testing.assert_close(out.logits.detach(), expected, **EXACT)
        for ours, theirs in zip(out.hidden_states, plain.hidden_states, strict=True):
            torch.testing.assert_close(ours.detach(), theirs, **EXACT)
    states = {layer: torch.empty(3, 30, 8, dtype=torch.double) for layer in (1, 2, -1)}
    for piece in adapted.stream_states(ids, layers=(1, 2, -1)):
        states[piece.layer][piece.tile.rows, piece.tile.positions] = piece.states
    for layer, theirs in ((1, plain.hidden_states[0]), (2, plain.hidden_states[1]), (-1, plain.hidden)):
        torch.testing.assert_close(states[layer], theirs, **EXACT)
    log_p = expected.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(token_log_probs(adapted, ids, targets, among=None), log_p, **EXACT)


@pytest.mark.usefixtures("small_pieces")
def test_decoding_equals_reading_the_whole(adapted: HyenaDNA) -> None:
    ids = tokens(2, 20)
    decoder = Decoder(adapted, ids[:, :6], 14)
    for end in range(6, 20):
        torch.testing.assert_close(decoder.logits_BV, by_hand(adapted, ids[:, :end])[:, -1], **EXACT)
        decoder.append(ids[:, end])
    best = generate(adapted, ids[:, :6], 1, temperature=0)[:, 0]
    assert torch.equal(best, by_hand(adapted, ids[:, :6])[:, -1, 7:11].argmax(-1) + 7)


def test_suffixes_are_exact(adapted: HyenaDNA) -> None:
    ids, suffix = tokens(1, 30), Suffix(0, 12, tokens(1, 10, seed=4)[0])
    states = ReferencePass(adapted, ids).suffixes([suffix])[0]
    whole = torch.cat([ids[0, :12], suffix.ids])[None]
    with torch.no_grad():
        torch.testing.assert_close(states, adapted.plain(whole).hidden[0, 12:], **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_lora_changes_nothing_and_a_prompt_does(model: HyenaDNA, kind: str) -> None:
    ids, before = tokens(2, 20), model.eval()(tokens(2, 20)).logits
    if kind == "lora":
        add_lora(model, LoraConfig(), base="base")
    else:
        add_soft_prompt(model, SoftPromptConfig(2), base="base")
    assert torch.allclose(model(ids).logits, before) == (kind == "lora")


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_the_plain_ones(
    model: HyenaDNA, kind: str, dropout: float, checkpointing: bool
) -> None:
    model.set_head(HEAD)
    adapt(model.double(), kind, dropout=dropout).train()
    model.backbone.activation_checkpointing = checkpointing
    mask = torch.arange(24) < torch.tensor([[24], [9], [1]])
    results = []
    for run in (model, model.plain):
        torch.manual_seed(0)
        out = run(tokens(3, 24), hidden_states=True, mask_BL=mask)
        loss = out.logits.square().sum() + out.hidden_states[0].sin().sum() + out.head_logits.exp().sum()
        model.zero_grad()
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), gradients))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    own = {name for name in our_gradients if not name.startswith("head.")}
    assert len(own) == (1 if kind == "soft-prompt" else 2 * 4 * 2)
    assert all(".lora_" in name or name == "backbone.prompt.vectors" for name in own)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in their_gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.usefixtures("small_pieces")
def test_the_loss_is_over_the_tokens_alone(adapted: HyenaDNA) -> None:
    ids, targets = tokens(2, 20), tokens(2, 20, seed=1)
    targets[0, 5:] = IGNORED
    loss = next_token_loss(adapted, ids, targets)
    flat = by_hand(adapted, ids).flatten(0, 1)
    expected = functional.cross_entropy(flat, targets.flatten(), reduction="sum", ignore_index=IGNORED)
    torch.testing.assert_close(loss.detach(), expected, **EXACT)
    assert loss.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_follows_its_model(model: HyenaDNA, kind: str) -> None:
    expected = by_hand(copy.deepcopy(adapt(model, kind)).double(), tokens(2, 20))
    moved = copy.deepcopy(model).double()
    moved.load_state_dict(model.state_dict())
    torch.testing.assert_close(moved(tokens(2, 20)).logits.detach(), expected, **EXACT)
    low = copy.deepcopy(model).bfloat16()
    for run in (low, low.plain):
        torch.testing.assert_close(run(tokens(2, 20)).logits.detach().double(), expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("how", ["mean", "last", "max"])
def test_the_head_pools_the_tokens_alone(model: HyenaDNA, how: Any) -> None:
    model.set_head(HeadConfig(task="binary", n_outputs=1, pool=how))
    adapt(model.double(), "soft-prompt")
    mask = torch.arange(10) < torch.tensor([[10], [4]])
    with torch.no_grad():
        out = model(tokens(2, 10), mask_BL=mask)
        expected = model.head.output_transform(pool(out.hidden, how, mask))
    torch.testing.assert_close(out.head_logits, expected, **EXACT)


def test_dropout_acts_in_training_and_not_in_reading(model: HyenaDNA) -> None:
    for kind in KINDS:
        changed = adapt(copy.deepcopy(model), kind, dropout=0.5).train()
        changed.backbone.dropout.p = 0.0
        ids = tokens(2, 12)
        trained = [changed(ids).hidden for _ in range(2)]
        assert not torch.allclose(*trained)
        read = [next(changed.stream_states(ids)).states.clone() for _ in range(2)]
        assert torch.equal(*read)
        torch.testing.assert_close(read[0], changed.eval()(ids).hidden.detach())


def test_lora_under_autocast_keeps_the_precision_of_its_sum(model: HyenaDNA) -> None:
    layer = adapt(model, "lora").backbone.blocks()[0].mixer.in_proj
    expected = layer.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.weight, expected)


def test_merging_gives_a_plain_model(adapted: HyenaDNA, config: HyenaConfig) -> None:
    expected = by_hand(adapted, tokens(2, 30))
    if adapted.backbone.prompt is not None:
        with pytest.raises(ModelError, match="this one has a soft prompt, which no weights can hold"):
            merge(adapted)
        return
    merge(adapted)
    assert adapted.state_dict().keys() == HyenaDNA(config).state_dict().keys()
    assert all(parameter.requires_grad for parameter in adapted.parameters())
    torch.testing.assert_close(adapted(tokens(2, 30)).logits.detach(), expected, **EXACT)
    with pytest.raises(ModelError, match="this one has no adapter"):
        merge(adapted)


# What is trained


def test_a_method_trains_its_own_parameters_only(model: HyenaDNA) -> None:
    model.set_head(HEAD)
    head = ["head.output_transform.bias", "head.output_transform.weight"]

    def trained(method: Any) -> list[str]:
        freeze(model, method)
        groups = model.parameter_groups(0.1, 0.2)
        chosen = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert {id(p) for p in names.values()} == chosen.keys()
        free = [name for name, p in names.items() if chosen[id(p)] == 0]
        assert all(".implicit_filter." in name or ".prompt." in name for name in free)
        assert bool(free) == (method in ("full", "soft-prompt"))
        return sorted(names)

    assert trained("full") == sorted(name for name, _ in model.named_parameters())
    assert trained("head") == head
    add_lora(model, LoraConfig(rank=1, targets=("out_proj", "in_proj")), base="base")
    lora = [
        f"backbone.layers.{i}.mixer.{layer}.lora_{matrix}.weight"
        for i in (0, 1)
        for layer in ("in_proj", "out_proj")
        for matrix in "AB"
    ]
    assert trained("lora") == sorted(lora + head)
    assert trained("head") == head
    merge(model)
    add_soft_prompt(model, SoftPromptConfig(1), base="base")
    assert trained("soft-prompt") == ["backbone.prompt.vectors", *head]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("head", "no head to train; give it one with set_head"),
        ("lora", "no LoRA to train; give it one with add_lora"),
        ("soft-prompt", "no soft prompt to train; give it one with add_soft_prompt"),
    ],
)
def test_a_method_needs_what_it_trains(model: HyenaDNA, method: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        freeze(model, method)


def test_an_adapted_model_has_no_second_adapter_and_no_full_training(adapted: HyenaDNA) -> None:
    with pytest.raises(ModelError, match="has an adapter already"):
        add_lora(adapted, LoraConfig(), base="base")
    with pytest.raises(ModelError, match="has an adapter already"):
        add_soft_prompt(adapted, SoftPromptConfig(2), base="base")
    with pytest.raises(ModelError, match="frozen base; merge the adapter first"):
        freeze(adapted, "full")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: LoraConfig(rank=0), "rank must be at least 1"),
        (lambda: LoraConfig(alpha=0), "alpha must be positive"),
        (lambda: LoraConfig(dropout=1), "dropout must lie in"),
        (lambda: LoraConfig(targets=("ln_f",)), "in_proj, out_proj, fc1, fc2, not ln_f"),
        (lambda: LoraConfig(targets=()), "not nothing"),
        (lambda: SoftPromptConfig(0), "1 to 32,768 tokens, not 0"),
        (lambda: SoftPromptConfig(32_769), "not 32,769"),
        (lambda: SoftPromptConfig(1, 1), "dropout must lie in"),
    ],
)
def test_impossible_sizes(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        wrong()


def test_a_soft_prompt_takes_room_in_the_context(model: HyenaDNA) -> None:
    with pytest.raises(ModelError, match="soft prompt of 40 tokens leaves no room in a model that takes 40"):
        add_soft_prompt(copy.deepcopy(model), SoftPromptConfig(40), base="base")
    adapt(model, "soft-prompt")
    assert model.longest_input == 35
    assert model(tokens(1, 35)).logits.shape == (1, 35, 16)
    message = "has 36 tokens, but this model takes at most 35 after a soft prompt of 5 in 40"
    long = tokens(1, 36)
    for read in (model, model.plain, model.hidden, model.stream_states):
        with pytest.raises(ModelError, match=message):
            read(long)
    with torch.no_grad(), pytest.raises(ModelError, match=message):
        model(long)
    with pytest.raises(
        ModelError, match="30 tokens and 6 new ones exceed the model's 35 after a soft prompt"
    ):
        generate(model, tokens(1, 30), 7)


def test_processes_cannot_share_what_follows_a_soft_prompt(model: HyenaDNA) -> None:
    adapt(model, "soft-prompt").backbone.context = object()
    with pytest.raises(ModelError, match="with a soft prompt cannot be shared by processes"):
        model(tokens(1, 8))


# Files


@pytest.fixture
def base(model: HyenaDNA, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def saved(base: Path, kind: str, tmp_path: Path) -> Path:
    """An adapter directory, with a head."""
    model = load_model(base)
    model.set_head(HEAD, generator=torch.Generator().manual_seed(5))
    save_adapter(adapt(model, kind, str(base), dropout=0.25), tmp_path / "adapter", provenance={"seed": 1})
    return tmp_path / "adapter"


def change(folder: Path, **values: Any) -> None:
    """Edit adapter_config.json as peft or a user does, without our checksum of it."""
    path, ours = folder / "adapter_config.json", folder / "hyena_adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    if ours.exists():
        checks = ("sha256", "adapter_config_sha256", *values)
        kept = {key: value for key, value in json.loads(ours.read_text()).items() if key not in checks}
        ours.write_text(json.dumps(kept))


def test_a_round_trip_is_exact(saved: Path, base: Path, kind: str) -> None:
    model = load_model(base)
    model.set_head(HEAD, generator=torch.Generator().manual_seed(5))
    adapt(model, kind, str(base), dropout=0.25)
    again = load_model(saved)
    assert not again.training
    assert again.config == model.config
    assert again.adapter == model.adapter
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    assert model_sha256(again) == model_sha256(model) != model_sha256(load_model(base))
    assert sorted(path.name for path in saved.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "hyena_adapter.json",
    ]
    assert json.loads((saved / "hyena_adapter.json").read_text())["provenance"] == {"seed": 1}
    assert sum(path.stat().st_size for path in saved.iterdir()) < 16_000


def test_a_folder_of_one_file_of_settings_is_read_too(saved: Path, tmp_path: Path) -> None:
    """The first adapters had everything in adapter_config.json, and a checksum of it."""
    whole = load_model(saved)
    path, ours = saved / "adapter_config.json", saved / "hyena_adapter.json"
    checks = ("sha256", "adapter_config_sha256")
    kept = {key: value for key, value in json.loads(ours.read_text()).items() if key not in checks}
    ours.unlink()
    raw = json.loads(path.read_text()) | kept
    checked = {key: value for key, value in raw.items() if key != "base_model_name_or_path"}
    sha256 = hashlib.sha256(json.dumps(checked, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(raw | {"sha256": sha256}, indent=2) + "\n")
    again = load_model(saved)
    assert (again.config, again.adapter) == (whole.config, whole.adapter)
    assert model_sha256(again) == model_sha256(whole)
    save_adapter(again, saved)
    assert ours.exists()
    assert "head" not in json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"sha256": sha256, "inference_mode": False}))
    ours.unlink()
    with pytest.raises(ModelError, match="its checksum does not fit"):
        load_model(saved)


def test_loading_leaves_the_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_model(saved)
    assert torch.equal(torch.rand(1), expected)


def test_the_hash_is_that_of_the_base(saved: Path, base: Path) -> None:
    raw = json.loads((saved / "adapter_config.json").read_text())
    raw |= json.loads((saved / "hyena_adapter.json").read_text())
    assert raw["base_model_sha256"] == model_sha256(load_model(base))
    assert raw["base_model_name_or_path"] == str(base.resolve())


def test_alpha_is_part_of_the_identity(base: Path) -> None:
    hashes = set()
    for alpha in (1, 2):
        model = load_model(base)
        add_lora(model, LoraConfig(alpha=alpha), base=str(base), generator=torch.Generator().manual_seed(0))
        hashes.add(model_sha256(model))
    assert len(hashes) == 2


def test_verbs_take_an_adapter_for_a_model(saved: Path, kind: str, tmp_path: Path) -> None:
    info, model = describe(saved), load_model(saved)
    assert all(check.passed for check in verify(model))
    assert (info.checkpoint_format, info.sha256) == ("native", model_sha256(model))
    assert info.n_parameters == model.n_parameters
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    shutil.copytree(saved, run / "step-1")
    (run / "best").symlink_to("step-1")
    assert model_sha256(load_model(tmp_path / "run")) == model_sha256(model)
    assert model_sha256(load_model(saved / "adapter_model.safetensors")) == model_sha256(model)
    if kind == "lora":
        convert(saved, tmp_path / "merged", "native")
        merged = load_model(tmp_path / "merged")
        torch.testing.assert_close(merged(tokens(2, 20)).logits, model(tokens(2, 20)).logits)
        assert merged.config.head == HEAD
    else:
        with pytest.raises(ModelError, match="soft prompt, which no weights can hold"):
            convert(saved, tmp_path / "merged", "native")


def test_saving_a_model_saves_its_adapter(saved: Path, base: Path, tmp_path: Path) -> None:
    model = load_model(saved)
    save_model(model, tmp_path / "again", provenance={"step": 3})
    assert model_sha256(load_model(tmp_path / "again")) == model_sha256(model)
    save_model(model, tmp_path / "again")
    with pytest.raises(ModelError, match="is not a model directory and is not replaced"):
        save_model(model, base)
    with pytest.raises(ModelError, match="the model has no adapter; write it whole with save_model"):
        save_adapter(load_model(base), tmp_path / "none")


def test_a_base_is_found_beside_the_adapter(saved: Path, base: Path, tmp_path: Path) -> None:
    expected = model_sha256(load_model(saved))
    (tmp_path / "moved").mkdir()
    saved.rename(tmp_path / "moved" / "adapter")
    base.rename(tmp_path / "moved" / "origin")
    moved = tmp_path / "moved" / "adapter"
    with pytest.raises(
        ModelError, match=r"adapter_config.json: the base model of this adapter cannot be had"
    ):
        load_model(moved)
    assert model_sha256(load_model(moved, base=tmp_path / "moved" / "origin")) == expected
    config = moved / "adapter_config.json"
    # the one line that users edit is not in the checksum
    config.write_text(
        re.sub(
            '"base_model_name_or_path": "[^"]*"', '"base_model_name_or_path": "../origin"', config.read_text()
        )
    )
    assert model_sha256(load_model(moved)) == expected


def test_another_base_is_refused_by_name(saved: Path, config: HyenaConfig, tmp_path: Path) -> None:
    save_model(HyenaDNA(config), tmp_path / "other")
    other = model_sha256(load_model(tmp_path / "other"))
    recorded = json.loads((saved / "hyena_adapter.json").read_text())["base_model_sha256"]
    with pytest.raises(ModelError, match=f"trained on the model {recorded}, but .*other.* is {other}"):
        load_model(saved, base=tmp_path / "other")
    with pytest.raises(ModelError, match="is not an adapter, so that it has no base model"):
        load_model(tmp_path / "other", base=tmp_path / "other")
    with pytest.raises(ModelError, match="is an adapter too"):
        load_model(saved, base=saved)


def test_the_window_shift_it_was_trained_with_is_kept(base: Path, kind: str, tmp_path: Path) -> None:
    model = adapt(load_model(base, window_shift=0.5), kind, str(base))
    save_adapter(model, tmp_path / "shifted")
    torch.testing.assert_close(
        load_model(tmp_path / "shifted")(tokens(1, 9)).logits, model(tokens(1, 9)).logits
    )
    asked = load_model(tmp_path / "shifted", window_shift=0.25)
    assert asked.config.window_shift == asked.backbone.blocks()[0].mixer.filter_fn.modulation.shift == 0.25


def test_an_adapter_without_a_head_leaves_that_of_the_base(base: Path, kind: str, tmp_path: Path) -> None:
    headed = load_model(base)
    headed.set_head(HEAD)
    save_model(headed, tmp_path / "headed")
    save_adapter(adapt(load_model(base), kind, str(base)), tmp_path / "adapter")
    again = load_model(tmp_path / "adapter", base=tmp_path / "headed")
    assert torch.equal(again.head.output_transform.weight, headed.head.output_transform.weight)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "kind 'IA3', but only LORA and PROMPT_TUNING"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa', but only True"),
        ({"use_dora": True}, "use_dora = True, but only False is supported"),
        ({"bias": "all"}, "bias = 'all', but only 'none'"),
        ({"r": "8"}, "r = '8', which is not a whole number"),
        ({"r": 0}, "rank must be at least 1"),
        ({"r": 2}, "misshapen .*lora_"),
        ({"target_modules": "all-linear"}, "target_modules = 'all-linear', which is not a list"),
        ({"target_modules": ["embed"]}, "not embed"),
        ({"target_modules": ["fc1", "fc2"]}, "unexpected .*_proj.lora_"),
        ({"base_model_sha256": 3}, "base_model_sha256 = 3, which is not text"),
        ({"base_model_name_or_path": None}, r"cannot be had \(it is not named\)"),
        ({"base_model_name_or_path": "."}, "is an adapter too"),
        ({"base_window_shift": "x"}, "base_window_shift = 'x', which is not a number"),
        ({"head": {"task": "binary"}}, "head"),
    ],
)
@pytest.mark.parametrize("kind", ["lora"])
def test_files_are_read_strictly(saved: Path, values: dict[str, Any], message: str) -> None:
    change(saved, **values)
    with pytest.raises(ModelError, match=message):
        load_model(saved)


def test_a_head_without_a_task_is_refused(saved: Path) -> None:
    """What peft saves of a model with a head."""
    ours = saved / "hyena_adapter.json"
    head = json.loads(ours.read_text())["head"]
    ours.unlink()
    message = (
        r'adapter_config\.json: does not say what the head beside it predicts.* copy the key "head" from'
    )
    with pytest.raises(ModelError, match=message):
        load_model(saved)
    change(saved, head=head)
    assert load_model(saved).config.head == HEAD


@pytest.mark.parametrize("kind", ["soft-prompt"])
def test_a_prompt_has_the_length_it_says(saved: Path) -> None:
    change(saved, num_virtual_tokens=N_SOFT + 1)
    with pytest.raises(ModelError, match=r"misshapen backbone\.prompt\.vectors \(5, 8\)"):
        load_model(saved)


def test_an_adapter_without_weights(saved: Path) -> None:
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"an adapter_config\.json, but no adapter_model.safetensors"):
        load_model(saved)


class Wrapped(nn.Module):
    """Stand-in for another package's wrapper: it shows the weights of the layer that it changes."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer, self.change = layer, nn.Parameter(torch.ones(layer.out_features))

    @property
    def weight(self) -> Tensor:
        return self.layer.weight

    @property
    def bias(self) -> Tensor:
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.change
        return out


def wrap(model: HyenaDNA) -> nn.Module:
    model.backbone.layers[1].mlp.fc1 = Wrapped(model.backbone.layers[1].mlp.fc1)
    return model


def hook(model: HyenaDNA) -> None:
    model.backbone.layers[0].mixer.in_proj.register_forward_hook(lambda _module, _inputs, out: out + 1)


def parametrise(model: HyenaDNA) -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    register_parametrization(model.backbone.layers[0].mixer.out_proj, "weight", Twice())


def replace_forward(model: HyenaDNA) -> None:
    layer = model.backbone.layers[0].mlp.fc2
    layer.forward = lambda x: 3 * functional.linear(x, layer.weight, layer.bias)


def wrap_block(model: HyenaDNA) -> None:
    class Rolled(nn.Module):
        def __init__(self, block: nn.Module):
            super().__init__()
            self.block = block

        def forward(self, r_BLD: Tensor) -> Tensor:
            out_BLD: Tensor = self.block(r_BLD).roll(1, -1)
            return out_BLD

    model.backbone.layers[1] = Rolled(model.backbone.layers[1])


@pytest.mark.parametrize("change_layers", [wrap, hook, parametrise, replace_forward, wrap_block])
def test_what_others_do_to_a_layer_is_not_left_out(
    model: HyenaDNA, tmp_path: Path, change_layers: Callable[[HyenaDNA], object]
) -> None:
    ids = tokens(2, 20)
    before = model.plain(ids).logits
    change_layers(model)
    expected = model.plain(ids).logits
    assert (expected - before).abs().max() > 1e-3
    torch.testing.assert_close(model(ids).logits, expected)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, expected)
    targets = next_bases(torch.cat([ids, ids[:, :1]], 1))
    loss = functional.cross_entropy(expected.flatten(0, 1), targets.flatten(), reduction="sum")
    ours = next_token_loss(model, ids, targets)
    torch.testing.assert_close(ours, loss)
    trained = [p for p in model.parameters() if p.requires_grad]
    for gradient, right in zip(*(torch.autograd.grad(x, trained) for x in (ours, loss)), strict=True):
        torch.testing.assert_close(gradient, right)
    for read in (
        lambda: token_log_probs(model, ids, ids),
        lambda: ReferencePass(model, ids),
        lambda: Decoder(model, ids, 2),
        lambda: list(model.stream_states(ids)),
    ):
        with pytest.raises(ModelError, match=r"backbone\.layers\.\d\S* \(.*\) is wrapped or has a hook"):
            read()
    if change_layers in (wrap, parametrise, wrap_block):
        with pytest.raises(ModelError, match="is not a module of this package"):
            save_model(model, tmp_path / "out")


def test_a_wrapped_lm_head_is_refused() -> None:
    model = HyenaDNA(HyenaConfig(d_model=8, n_layer=1, d_inner=8, l_max=20, tied_head=False)).eval()
    model.lm_head = nn.Sequential(model.lm_head, nn.Softplus())
    with pytest.raises(ModelError, match="LM head is a Sequential"):
        model(tokens(1, 5))


# peft, where it is installed


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="peft is not installed: it cannot be compared with ours")


@pytest.mark.filterwarnings("ignore")  # peft's, as below
@pytest.mark.parametrize("kind", ["lora"])
def test_peft_wraps_our_models(peft: Any, saved: Path, base: Path) -> None:
    ours, bare, ids = load_model(saved), load_model(base), tokens(2, 20)
    bare.set_head(HEAD)
    theirs = peft.PeftModel.from_pretrained(bare, str(saved)).eval()
    for field in ("logits", "hidden"):
        torch.testing.assert_close(getattr(theirs(ids), field), getattr(ours(ids), field))
        with torch.no_grad():
            torch.testing.assert_close(getattr(theirs(ids), field), getattr(ours(ids), field))


@pytest.mark.filterwarnings("ignore")
def test_peft_trains_our_models(peft: Any, model: HyenaDNA) -> None:
    config = peft.LoraConfig(
        r=2, target_modules=["in_proj", "out_proj", "fc1", "fc2"], init_lora_weights=False
    )
    wrapped, ids = peft.get_peft_model(model, config), tokens(2, 20)
    next_token_loss(wrapped, ids[:, :-1], next_bases(ids)).backward()
    lora = [p for name, p in wrapped.named_parameters() if "lora_" in name]
    assert len(lora) == 2 * 4 * 2
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lora)
    expected = model.plain(ids).logits
    torch.testing.assert_close(wrapped(ids).logits, expected)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(merged.eval()(ids).logits, model.plain(ids).logits)
    assert list(merged.stream_states(ids))


@pytest.mark.filterwarnings("ignore")  # peft's: of its own imports, and of the keys it does not know
@pytest.mark.parametrize("kind", ["lora"])
def test_peft_reads_and_writes_the_same_files(peft: Any, saved: Path, base: Path, tmp_path: Path) -> None:
    ours, bare = load_model(saved), load_model(base)
    bare.set_head(HEAD)
    theirs = peft.PeftModel.from_pretrained(bare, str(saved))
    ids = tokens(2, 20)
    for field in ("logits", "head_logits"):
        expected = getattr(ours.plain(ids), field)
        torch.testing.assert_close(getattr(theirs.base_model.model.plain(ids), field), expected)
    theirs.save_pretrained(str(tmp_path / "peft"), save_embedding_layers=False)
    written, read = (load_file(f / "adapter_model.safetensors") for f in (tmp_path / "peft", saved))
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], read[name]) for name in read)
    change(tmp_path / "peft", head={"task": "binary", "n_outputs": 2, "labels": ["no", "yes"]})
    again = load_model(tmp_path / "peft", base=base)
    torch.testing.assert_close(again(ids).head_logits, ours(ids).head_logits)
