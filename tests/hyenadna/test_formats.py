"""Finding, reading and writing models in every checkpoint format, on tiny fresh ones."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from hyenadna import (
    HeadConfig,
    HyenaConfig,
    HyenaDNA,
    ModelError,
    convert,
    describe,
    load_model,
    model_sha256,
    save_model,
    verify,
)
from hyenadna.formats.configs import write_config
from hyenadna.formats.files import read_tensors

FOREIGN = ["hf", "multimolecule", "official"]


@pytest.fixture
def native(model: HyenaDNA, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "native", provenance={"seed": 1})
    return tmp_path / "native"


def randomised(config: HyenaConfig) -> HyenaDNA:
    model = HyenaDNA(config, generator=torch.Generator().manual_seed(2)).eval()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model


def same(a: HyenaDNA, b: HyenaDNA) -> None:
    assert a.config == b.config
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


@pytest.mark.parametrize("kind", [*FOREIGN, "native"])
def test_round_trips_bit_for_bit(model: HyenaDNA, native: Path, tmp_path: Path, kind: Any) -> None:
    convert(native, tmp_path / "there", kind)
    assert describe(tmp_path / "there").checkpoint_format == kind
    convert(tmp_path / "there", tmp_path / "back", "native")
    same(load_model(tmp_path / "there"), model)
    same(load_model(tmp_path / "back"), model)
    assert describe(tmp_path / "there").sha256 == describe(native).sha256 == model_sha256(model)


def with_trained_z(model: HyenaDNA) -> HyenaDNA:
    position = model.backbone.positional()[1]
    position.z = position.z + 0.01
    return model


HEAD = HeadConfig(task="binary", n_outputs=2)
HF_HEAD = HeadConfig(task="multiclass", n_outputs=3, labels=("a", "b", "c"), pool="last", bias=False)


def variant(config: HyenaConfig, **changes: Any) -> HyenaDNA:
    return randomised(replace(config, **changes))


VARIANTS: dict[str, tuple[Callable[[HyenaConfig], HyenaDNA], set[str], str]] = {
    # name: (maker, the foreign formats that can hold it, what the others name)
    "trained z": (lambda c: with_trained_z(randomised(c)), {"hf", "official"}, "trained backbone.layers.1"),
    "untied": (lambda c: variant(c, tied_head=False), {"hf"}, "an LM head of its own"),
    "unshared": (lambda c: variant(c, shared_freq=False), {"multimolecule"}, "not shared"),
    "shift 0": (lambda c: variant(c, window_shift=0.0), {"hf", "official"}, "window_shift = 0.0"),
    "resid dropout": (lambda c: variant(c, resid_dropout=0.1), {"hf", "official"}, "resid_dropout = 0.1"),
    "head": (lambda c: variant(c, head=HEAD), {"hf", "official"}, "a prediction head"),
    "hf head": (lambda c: variant(c, head=HF_HEAD), {"hf"}, "a prediction head"),
    "deep filter": (lambda c: variant(c, n_inner_mlps=3), set(FOREIGN), ""),
    "no inner": (lambda c: variant(c, n_inner_mlps=0), set(FOREIGN), ""),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_format_holds_all_of_a_model_or_refuses(
    config: HyenaConfig, tmp_path: Path, name: str, kind: Any
) -> None:
    make, holders, message = VARIANTS[name]
    model = make(config)
    save_model(model, tmp_path / "native")
    same(load_model(tmp_path / "native"), model)
    if kind in holders:
        convert(tmp_path / "native", tmp_path / "out", kind)
        same(load_model(tmp_path / "out"), model)
    else:
        with pytest.raises(ModelError, match=message):
            convert(tmp_path / "native", tmp_path / "out", kind)
        assert not (tmp_path / "out").exists()
        if model.config.head is not None:
            convert(tmp_path / "native", tmp_path / "out", kind, drop_head=True)
            model.drop_head()
            same(load_model(tmp_path / "out"), model)


def test_native_directory(model: HyenaDNA, native: Path) -> None:
    assert sorted(path.name for path in native.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    raw = json.loads((native / "config.json").read_text())
    assert raw["format"] == "hyena-native"
    assert raw["tokenizer"]["alphabet"][7:] == ["A", "C", "G", "T", "N"]
    assert raw["provenance"] == {"seed": 1}
    stored = load_file(native / "model.safetensors")
    assert set(stored) == {name for name, _ in model.named_parameters()}
    assert sum(t.numel() for t in stored.values()) == model.n_parameters
    card = (native / "README.md").read_text()
    assert f"{model.n_parameters:,}" in card
    assert "* seed: 1" in card


def test_loading_leaves_the_random_state_alone(native: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_model(native)
    assert torch.equal(torch.rand(1), expected)


def test_save_replaces_a_model_and_nothing_else(model: HyenaDNA, native: Path, tmp_path: Path) -> None:
    (native / "trainer.json").write_text("{}")
    save_model(model, native)
    assert "trainer.json" not in [path.name for path in native.iterdir()]
    (native / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"holds 'notes.txt', so it is not a model directory"):
        save_model(model, native)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelError, match="is a file"):
        save_model(model, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "native"]


def test_a_failing_save_leaves_what_was_there(
    model: HyenaDNA, native: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (native / "model.safetensors").read_bytes()

    def full(*_args: Any, **_kwargs: Any) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ModelError, match=r"native: cannot be written \(No space left on device\)"):
        save_model(model, native)
    assert (native / "model.safetensors").read_bytes() == before
    assert [path.name for path in native.parent.iterdir()] == ["native"]


def test_run_directories(model: HyenaDNA, native: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(ModelError, match="without a checkpoint yet"):
        load_model(run)
    shutil.copytree(native, run / "checkpoints/last")
    same(load_model(run), model)
    best = HyenaDNA(replace(model.config, d_inner=4))
    save_model(best, run / "checkpoints/best")
    assert load_model(run).config.d_inner == 4


def test_a_preset_is_no_model_to_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: HyenaDNA
) -> None:
    with pytest.raises(ModelError, match=r"fresh weights.*say hyenadna-tiny-1k$"):
        load_model("tiny-1k")
    monkeypatch.chdir(tmp_path)
    save_model(model, "tiny-1k")
    same(load_model("tiny-1k"), model)


def shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    placed = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for part in set(placed.values()):
        save_file({n: tensors[n] for n in names if placed[n] == part}, folder / part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    (folder / "model.safetensors").unlink()


def as_bin(folder: Path) -> None:
    """The port's .bin files list the shared frequency three times."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in list(tensors.items()):
        if name.endswith("implicit_filter.1.freq"):
            tensors |= {name.replace(".1.freq", f".{i}.freq"): tensor for i in (3, 5)}
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("rewrite", [shards, as_bin])
def test_other_containers_of_hf(model: HyenaDNA, native: Path, tmp_path: Path, rewrite: Any) -> None:
    convert(native, tmp_path / "hf", "hf")
    rewrite(tmp_path / "hf")
    same(load_model(tmp_path / "hf"), model)


def test_diverged_frequencies_of_multimolecule(native: Path, tmp_path: Path) -> None:
    convert(native, tmp_path / "mm", "multimolecule")
    file = tmp_path / "mm/model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mixer.filter_fn.implicit_filter.3.freq"] += 1
    save_file(tensors, file)
    model = load_model(tmp_path / "mm")
    assert not model.config.shared_freq
    frequencies = [model.backbone.blocks()[1].mixer.filter_fn.implicit_filter[i].freq for i in (1, 3)]
    torch.testing.assert_close(frequencies[1], frequencies[0] + 1)


@pytest.mark.parametrize("kind", ["bare", "sequence", "token", "causal"])
def test_backbones_of_multimolecule(model: HyenaDNA, native: Path, tmp_path: Path, kind: str) -> None:
    """What its classes save: a backbone with a pooler, with the tied LM head, or with a head of its own."""
    convert(native, tmp_path / "mm", "multimolecule")
    file = tmp_path / "mm" / "model.safetensors"
    tensors = load_file(file)
    dense = {"dense.weight": torch.ones(8, 8), "dense.bias": torch.ones(8)}
    if kind == "bare":
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        tensors |= {f"pooler.{name}": tensor for name, tensor in dense.items()}
    elif kind == "sequence":
        tensors |= {f"model.pooler.{name}": tensor for name, tensor in dense.items()}
        tensors |= {"sequence_head.decoder.weight": torch.ones(3, 8)}
    elif kind == "token":
        tensors |= {"token_head.decoder.weight": torch.ones(3, 8), "token_head.decoder.bias": torch.ones(3)}
    else:
        tensors |= {"lm_head.weight": tensors["model.embeddings.word_embeddings.weight"].clone()}
    save_file(tensors, file)
    if kind in ("sequence", "token"):
        message = rf"has MultiMolecule's {kind}_head, which hyena does not compute; .* --drop-head$"
        with pytest.raises(ModelError, match=message):
            load_model(file)
        convert(file, tmp_path / "bare", "native", drop_head=True)
        file = tmp_path / "bare"
    same(load_model(file), model)


def test_wrapped_names_need_no_flag(model: HyenaDNA, native: Path, tmp_path: Path) -> None:
    convert(native, tmp_path / "o", "official")
    state = torch.load(tmp_path / "o/weights.ckpt", weights_only=True)["state_dict"]
    wrapped = {
        "module." + n.replace(".mixer.", ".mixer.layer.").replace(".mlp.", ".mlp.layer."): t
        for n, t in state.items()
    }
    torch.save(
        {"state_dict": wrapped | {"val_torchmetrics.count": torch.tensor(3)}}, tmp_path / "o/weights.ckpt"
    )
    same(load_model(tmp_path / "o"), model)


def test_hf_classifier(native: Path, tmp_path: Path) -> None:
    convert(native, tmp_path / "hf", "hf")
    tensors = load_file(tmp_path / "hf/model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors | {"score.weight": torch.ones(2, 8)}, tmp_path / "hf/model.safetensors")
    raw = json.loads((tmp_path / "hf/config.json").read_text())
    for labels, expected in (
        ({"1": "yes", "0": "no"}, ("no", "yes")),
        ({"0": "LABEL_0", "1": "LABEL_1"}, ()),
    ):
        (tmp_path / "hf/config.json").write_text(json.dumps(raw | {"id2label": labels}))
        head = load_model(tmp_path / "hf").config.head
        assert head == HeadConfig("binary", 2, expected, pool="last", bias=False)
    (tmp_path / "hf/config.json").write_text(json.dumps(raw | {"id2label": {"0": "one", "1": "b", "2": "c"}}))
    with pytest.raises(ModelError, match="2 outputs cannot have 3 labels"):
        load_model(tmp_path / "hf")


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw.pop("sha256", None)
    change(raw)
    (folder / "config.json").write_text(json.dumps(raw))


BAD_CONFIGS = [
    ("official", lambda r: r["layer"].pop("l_max"), r"lacks layer.l_max"),
    ("official", lambda r: r["layer"].update(order=3), "layer.order = 3, but only 2 is supported"),
    ("official", lambda r: r["layer"].update(bidirectional=True), "layer.bidirectional = True"),
    ("official", lambda r: r.update(d_model="8"), "d_model = '8', which is not a whole number"),
    ("official", lambda r: r.update(d_model=0), "d_model must be 1 to 16,777,216, not 0"),
    ("official", lambda r: r.pop("layer"), "is not a HyenaDNA configuration"),
    ("hf", lambda r: r.pop("emb_dim"), "lacks emb_dim"),
    ("hf", lambda r: r.pop("activation_freq"), "lacks activation_freq"),
    ("hf", lambda r: r.update(model_type="gpt2"), "describes a 'gpt2' model"),
    ("hf", lambda r: r.update(hyena_order=3), "hyena_order = 3"),
    ("hf", lambda r: r.update(layer_norm_epsilon=1e-6), "layer_norm_epsilon = 1e-06"),
    ("multimolecule", lambda r: r.pop("max_position_embeddings"), "lacks max_position_embeddings"),
    ("native", lambda r: r.update(format_version=2), "format_version 2"),
    ("native", lambda r: r.pop("architecture"), "lacks the table"),
    ("native", lambda r: r["architecture"].update(colour=1), "unknown 'colour'"),
    ("native", lambda r: r["architecture"].pop("d_model"), "missing d_model"),
    ("native", lambda r: r.update(head={"task": "binary"}), "head: .*n_outputs"),
    ("native", lambda r: r.update(head={"task": "x", "n_outputs": 1}), "head task 'x'"),
    ("native", lambda r: r.update(head=[]), "lacks the table 'head'"),
]


@pytest.mark.parametrize(("kind", "change", "message"), BAD_CONFIGS)
def test_bad_configurations(native: Path, tmp_path: Path, kind: Any, change: Any, message: str) -> None:
    convert(native, tmp_path / "m", kind)
    edit_config(tmp_path / "m", change)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path / "m")
    assert str(tmp_path / "m/config.json") in str(caught.value)


@pytest.mark.parametrize("kind", [*FOREIGN, "native"])
def test_unknown_keys_change_nothing(native: Path, tmp_path: Path, kind: Any) -> None:
    convert(native, tmp_path / "m", kind)
    edit_config(tmp_path / "m", lambda r: r.update(fused_dropout_add_ln=False, something=[1]))
    same(load_model(tmp_path / "m"), load_model(native))


@pytest.mark.parametrize("text", ["", "{", "[1]", "nonsense", "[" * 100_000])
def test_bad_json(native: Path, text: str) -> None:
    (native / "config.json").write_text(text)
    message = r"config.json: is (not valid JSON|JSON, but not an object).*; take an undamaged copy"
    with pytest.raises(ModelError, match=message):
        load_model(native)


@pytest.mark.parametrize("kind", [*FOREIGN, "native"])
def test_strict(native: Path, tmp_path: Path, kind: Any) -> None:
    convert(native, tmp_path / "m", kind)
    weights = tmp_path / "m" / ("weights.ckpt" if kind == "official" else "model.safetensors")
    if kind == "official":
        tensors = dict(torch.load(weights, weights_only=True)["state_dict"])
    else:
        tensors = load_file(weights)

    def attempt(changed: dict[str, torch.Tensor], message: str) -> None:
        if kind == "official":
            torch.save(changed, weights)
        else:
            save_file({n: t.clone() for n, t in changed.items()}, weights)
        with pytest.raises(ModelError, match=message):
            load_model(tmp_path / "m")

    norm = next(name for name in tensors if name.endswith("layers.0.norm1.bias"))
    attempt({n: t for n, t in tensors.items() if n != norm}, r"missing backbone.layers.0.norm1.bias; is this")
    attempt(tensors | {"extra.weight": torch.ones(1)}, r"unexpected extra.weight")
    attempt(
        tensors | {norm: torch.ones(9)}, r"misshapen backbone.layers.0.norm1.bias \(9,\) .* instead of \(8,\)"
    )
    attempt(tensors | {norm: torch.ones(8, dtype=torch.int64)}, r"misshapen .*torch.int64")
    few = {n: t for n, t in tensors.items() if "norm" not in n}
    attempt(few, r"missing .*, \.\.\. \((10|8) in all\)")


@pytest.mark.parametrize("buffer", ["pos_emb.z", "pos_emb.t", "modulation.deltas"])
def test_published_formats_must_hold_their_buffers(native: Path, tmp_path: Path, buffer: str) -> None:
    convert(native, tmp_path / "m", "hf")
    tensors = load_file(tmp_path / "m/model.safetensors")
    save_file({n: t for n, t in tensors.items() if not n.endswith(buffer)}, tmp_path / "m/model.safetensors")
    with pytest.raises(ModelError, match=f"missing backbone.layers.0.mixer.filter_fn.{buffer}"):
        load_model(tmp_path / "m")


def test_another_l_max_is_another_model(native: Path, tmp_path: Path) -> None:
    convert(native, tmp_path / "m", "hf")
    edit_config(tmp_path / "m", lambda r: r.update(max_seq_len=38))
    with pytest.raises(
        ModelError, match=r"misshapen .*pos_emb.z \(1, 40, 5\) torch.float32 instead of \(1, 38, 5\)"
    ):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a torch or safetensors file"),
        (b"hello world, this is text", "is not a torch or safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
        (b'{"a": 1}', "JSON without a weight_map"),
        (b'{"weight_map": {"a": "../x.safetensors"}}', "names the shard '../x.safetensors'"),
        (b'{"weight_map": {"a": "config.json"}}', "JSON without a weight_map"),
        (None, "is not a torch or safetensors file, or is damaged"),
    ],
)
def test_bad_weights(native: Path, content: bytes | None, message: str) -> None:
    weights = native / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9] if content is None else content)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(native)
    assert "\n" not in str(caught.value)


def test_lost_shards(native: Path, tmp_path: Path) -> None:
    convert(native, tmp_path / "m", "hf")
    shards(tmp_path / "m")
    index = tmp_path / "m/model.safetensors.index.json"
    placed = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": placed | {"zzz": "part-0.safetensors"}}))
    with pytest.raises(ModelError, match="1 tensors of the index are in no shard, first zzz"):
        load_model(tmp_path / "m")


def test_files_and_their_configuration(model: HyenaDNA, native: Path, tmp_path: Path) -> None:
    same(load_model(native / "model.safetensors"), model)
    (native / "config.json").rename(native / "my_config.json")
    same(load_model(str(native / "model.safetensors")), model)
    with pytest.raises(ModelError, match=r"has no config.json; give"):
        load_model(native)
    shutil.copy(native / "my_config.json", native / "other_config.json")
    with pytest.raises(ModelError, match=r"has 2 files \*config.json beside it"):
        load_model(native / "model.safetensors")
    lonely = tmp_path / "lonely" / "w.safetensors"
    lonely.parent.mkdir()
    shutil.copy(native / "model.safetensors", lonely)
    with pytest.raises(ModelError, match=r"has no config.json beside it"):
        load_model(lonely)
    shutil.copy(native / "my_config.json", lonely.parent / "config.json")
    same(load_model(lonely.parent), model)
    shutil.copy(lonely, lonely.with_name("v.safetensors"))
    with pytest.raises(ModelError, match=r"several weights files \(v.safetensors, w.safetensors\)"):
        load_model(lonely.parent)
    (native / "my_config.json").rename(native / "config.json")
    (native / "other_config.json").unlink()
    (native / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="but no weights"):
        load_model(native)


@pytest.mark.parametrize(
    "spec", ["nothing", "./a/b", "a/b/c", "dir/w.safetensors", "/no/where", "org/", "~/m"]
)
def test_no_such_model(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ModelError, match=r"no such file, directory or model name; published models: hyenadna-"
    ):
        load_model(spec)


def test_describe(model: HyenaDNA, native: Path) -> None:
    info = describe(native)
    assert (info.checkpoint_format, info.context, info.n_parameters) == ("native", 38, model.n_parameters)
    assert info.n_buffer_values == 2 * (40 * 6 + 8)
    assert info.weights == native / "model.safetensors"
    assert json.loads(json.dumps(info.to_dict()))["config"]["d_model"] == 8


def test_hash_sees_weights_and_meaning_only(model: HyenaDNA) -> None:
    sha = model_sha256(model)
    assert model_sha256(randomised(replace(model.config, embed_dropout=0.3))) == model_sha256(
        randomised(model.config)
    )
    position = model.backbone.positional()[0]
    position.z = position.z + 1e-7
    assert model_sha256(model) == sha
    with torch.no_grad():
        model.backbone.ln_f.bias[0] += 1e-6
    assert model_sha256(model) != sha


def test_written_configurations_have_the_published_keys(config: HyenaConfig, shared: Path) -> None:
    for kind, place in (
        ("official", "plain_keys"),
        ("hf", "hf"),
        ("multimolecule", "multimolecule"),
    ):
        published = json.loads((shared / "golden/micro_d32" / place / "config.json").read_text())
        written = write_config(config, kind, {})
        informal = {"_name_or_path", "head", "hidden_dropout", "id2label", "label2id", "num_labels", "dtype"}
        assert set(published) - set(written) <= informal | {"transformers_version"}
        if kind == "official":
            assert set(published["layer"]) <= set(written["layer"])


def test_verify(model: HyenaDNA) -> None:
    checks = {check.name: check for check in verify(model)}
    assert list(checks) == ["finite", "positions", "causality", "prefix", "convolution"]
    assert all(check.passed for check in checks.values())
    assert "trained" in {c.name: c.detail for c in verify(with_trained_z(model))}["positions"]
    position = model.backbone.positional()[0]
    position.t = position.t + 1
    assert [c.name for c in verify(model) if not c.passed] == ["positions"]
    with torch.no_grad():
        model.backbone.ln_f.weight[0] = torch.nan
    assert {c.name for c in verify(model) if not c.passed} >= {"finite", "causality", "prefix"}


@pytest.mark.parametrize("low_byte", range(0, 256, 8))
def test_safetensors_are_known_whatever_the_size_of_their_header(tmp_path: Path, low_byte: int) -> None:
    """The file begins with that size: 0x80 is also how a pickle begins."""
    path = tmp_path / "weights"
    save_file({"x": torch.ones(1)}, path, metadata={"padding": ""})
    padding = "." * ((low_byte - path.read_bytes()[0]) % 256)
    save_file({"x": torch.ones(1)}, path, metadata={"padding": padding})
    assert path.read_bytes()[0] == low_byte
    assert torch.equal(read_tensors(path)["x"], torch.ones(1))
