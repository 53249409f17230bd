"""`hyena models`, through the command line."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hyenadna
from hyenacli.app import app
from hyenadna import (
    HeadConfig,
    HyenaConfig,
    HyenaDNA,
    LoraConfig,
    add_lora,
    describe,
    parse_hub_name,
    save_adapter,
    save_model,
)


@pytest.fixture
def model() -> HyenaDNA:
    return HyenaDNA(HyenaConfig(d_model=8, n_layer=2, d_inner=16, l_max=40, filter_order=8)).eval()


@pytest.fixture
def native(model: HyenaDNA, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "native")
    return tmp_path / "native"


@pytest.fixture
def hyena(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            app(["models", *map(str, arguments)], prog_name="hyena")
        return end.value.code, *capsys.readouterr()

    return run


def test_list(hyena: Any) -> None:
    code, out, err = hyena("list")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert len(rows) == 8
    assert rows[0][0] == "model"
    assert rows[-1][:4] == ["hyenadna-large-1m", "1000000", "6550528", "218.2"]
    assert "BSD-3-Clause" in err
    for name, *_ in rows[1:]:
        assert parse_hub_name(name)[0].startswith("LongSafari/hyenadna-")


def test_download(hyena: Any, native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Any] = []
    monkeypatch.setattr(hyenadna, "download", lambda *request: requests.append(request) or native)
    code, _, err = hyena("download", "hyenadna-tiny-1k", "--to", tmp_path / "new")
    assert code == 0
    assert requests == [("LongSafari/hyenadna-tiny-1k-seqlen-hf", None, tmp_path / "new")]
    assert "MB, complete and checked by hash" in err
    assert f"-m {native}" in err
    code, _, err = hyena("download", "hyenadna-tiny-1k", "--to", native / "config.json")
    assert (code, "is a file; choose another directory" in err) == (1, True)
    code, _, err = hyena("download", "tiny-1k")
    assert (code, "say hyenadna-tiny-1k" in err) == (1, True)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("embed a.fa -o b.tsv", "-m hyenadna-small-32k (16 MB; `hyena models list`"),
        ("score-variants a.vcf -f g.fa", "-m hyenadna-small-32k"),
        ("predict a.fa -o b.tsv", "the directory of a `hyena finetune` run"),
    ],
)
def test_a_missing_model_says_what_to_put_there(
    line: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        app(line.split(), prog_name="hyena")
    assert end.value.code == 2
    assert remedy in capsys.readouterr().err


def test_info(hyena: Any, native: Path) -> None:
    code, out, _ = hyena("info", native, "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(describe(native).to_dict()))
    _, out, _ = hyena("info", native)
    table = dict(line.split("\t") for line in out.splitlines())
    assert (table["checkpoint_format"], table["d_model"]) == ("native", "8")
    assert (table["head"], table["tied_head"]) == ("none", "yes")


def test_info_of_a_head_and_of_an_adapter(hyena: Any, native: Path, model: HyenaDNA, tmp_path: Path) -> None:
    model.set_head(HeadConfig("multiclass", 3, ("a", "b", "it's c")))
    add_lora(model, LoraConfig(rank=2, targets=("fc1", "fc2")), base=str(native))
    save_adapter(model, tmp_path / "adapter")
    _, out, _ = hyena("info", tmp_path / "adapter")
    table = dict(line.split("\t") for line in out.splitlines())
    assert table["head.labels"] == "a, b, it's c"
    assert table["head.center"] == table["demonstrations"] == "none"
    assert (table["adapter.kind"], table["adapter.targets"]) == ("LoRA", "fc1, fc2")
    assert not any(sign in out for sign in ("None", "True", "False", "{", "("))


def test_damage_is_one_line(hyena: Any, native: Path) -> None:
    file = native / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for verb in ("verify", "info"):
        assert hyena(verb, native) == (
            1,
            "",
            f"hyena: error: {file}: is damaged: its checksum does not fit; take an undamaged copy\n",
        )


NOT_TO_DO = {
    "native": "--to hf",
    "hf": "Do not pad on the left",
    "multimolecule": "first\n  token only",
    "official": "use_head=True",
}
HEADS = {
    "hf": HeadConfig(task="multiclass", n_outputs=3, pool="last", bias=False),
    "official": HeadConfig(task="binary", n_outputs=2),
}


@pytest.mark.parametrize("headed", [False, True])
@pytest.mark.parametrize("layout", NOT_TO_DO)
def test_every_export_says_how_to_open_it(
    hyena: Any, model: HyenaDNA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, headed: bool
) -> None:
    if headed and layout in HEADS:
        model = HyenaDNA(replace(model.config, head=HEADS[layout])).eval()
    save_model(model, tmp_path / "native")
    out = tmp_path / "it's {mine}"
    assert hyena("convert", tmp_path / "native", out, "--to", layout) == (0, "", "")
    card = (out / "README.md").read_text()
    assert NOT_TO_DO[layout] in card
    assert len(dict.fromkeys(card.split("## What not to do"))) == 2
    monkeypatch.chdir(tmp_path)
    [commands] = re.findall(r"```sh\n(.*?)```", card, re.DOTALL)
    [command] = commands.splitlines()
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("hyena", "models")
    code, printed, _ = hyena(*arguments)
    assert code == 0
    assert layout in printed
    ours, *foreign = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(ours, names)
    assert names["out"].logits.shape == (1, 4, 16)
    for code in foreign:
        compile(code, "README.md", "exec")
    auto = "AutoModelForSequenceClassification" if headed else "AutoModelForCausalLM"
    assert (auto in card) == (layout == "hf")


def test_convert(hyena: Any, native: Path, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    assert hyena("convert", native, out, "--to", "hf") == (0, "", "")
    assert describe(out).sha256 == describe(native).sha256
    code, _, error = hyena("convert", native, out, "--to", "official")
    assert code == 1
    assert error == (
        f"hyena: error: {out}: is not empty; choose another directory, or replace a model with --force\n"
    )
    assert hyena("convert", native, out, "--to", "official", "--force")[0] == 0
    assert describe(out).checkpoint_format == "official"
    code, _, error = hyena("convert", native, out, "--to", "nativ")
    assert code == 2
    assert error.startswith("hyena: error: Invalid value for '--to': 'nativ' is not one of 'native', 'hf'")
    assert "to: hf" in hyena("convert", native, out, "--to", "hf", "--print-config")[1]


def test_verify(hyena: Any, native: Path, model: HyenaDNA) -> None:
    code, out, _ = hyena("verify", native)
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["result", *["PASS"] * 5]
    with torch.no_grad():
        model.backbone.ln_f.weight[0] = torch.inf
    save_model(model, native)
    code, out, _ = hyena("verify", native)
    assert code == 1
    assert "FAIL\tfinite\tNaN or infinity in backbone.ln_f.weight\n" in out


def test_a_model_error_is_one_line(hyena: Any, tmp_path: Path) -> None:
    code, out, error = hyena("verify", tmp_path)
    assert (code, out) == (1, "")
    assert error.startswith(f"hyena: error: {tmp_path}: has no config.json; ")
    assert error.count("\n") == 1
