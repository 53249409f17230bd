"""`hyena finetune` as it is typed: what it refuses, in one line and before anything is written."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hyenacli.app import app
from hyenadna import load_model, model_sha256
from tests.builders import random_dna, write_fasta
from tests.finetunes import TINY, base_model, two_classes, write_table

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: with a base model and a table."""
    base_model(tmp_path / "base")
    two_classes(tmp_path / "table.csv", 60)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hyena(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["finetune", *arguments])


BAD = [
    ("none.csv", 1, "none.csv: no such file"),
    ("table.csv -m nowhere", 1, "nowhere: no such file, directory or model name; published models: "),
    ("table.csv -m nowhere", 1, "; fresh weights: tiny-1k, "),
    ("table.csv --method magic", 2, "Invalid value for '--method': 'magic' is not one of 'full', 'head'"),
    ("table.csv --pool median", 2, "Invalid value for '--pool': 'median' is not one of"),
    ("table.csv --rc both", 2, "Invalid value for '--rc': 'both' is not one of"),
    ("table.csv --task many", 2, "'--task': 'many' is not one of"),
    ("table.csv --label-column klass", 1, "no column 'klass'; the columns are sequence, label"),
    ("table.csv --sequence-column dna", 1, "no column 'dna'; the columns are sequence, label"),
    ("table.csv --solver sklearn", 2, "--solver sklearn: fits heads on sequences; add --method head"),
    ("table.csv --pool auto", 2, "--pool auto: is chosen for heads that scikit-learn fits; name one, or add"),
    ("table.csv --sweep lr", 2, "--sweep: cannot read 'lr'; write a key and its values"),
    ("table.csv --sweep lr=a,b", 2, "--sweep: 'a,b' are not numbers"),
    ("table.csv --sweep lr=3", 2, "--sweep: rates and dropouts lie from 0 to below 1"),
    ("table.csv --predictions xlsx", 2, "Invalid value for '--predictions': 'xlsx' is not one of"),
    ("table.csv --micro-batch-size few", 2, "--micro-batch-size: "),
    ("table.csv --folds 100", 1, "fewer records than 100 folds"),
    ("table.csv --valid-groups a", 1, "lies on no contig"),
    ("table.csv --task regression", 1, "label 'rich' is not a number"),
    ("numbers.csv --task regression --calibrate", 2, "--calibrate: a regression has no probabilities"),
    (
        "numbers.csv --class-weights balanced",
        2,
        "--class-weights: a regression has no classes to weigh; leave",
    ),
    ("table.csv -m tiny-1k --method soft-prompt", 2, "nothing to adapt; give -m a pretrained model"),
    ("table.csv --method soft-prompt --prompt-tokens 66", 1, "leaves no room in a model that takes 66"),
    ("regions.bed", 2, "regions.bed: is a BED; give its genome with -f/--fasta"),
    (
        "kinds.fa --group-column family",
        2,
        "kinds.fa: is a FASTA, which has no columns; leave out --group-col",
    ),
    (
        "table.csv --method head --embed-dropout 0.1",
        2,
        "--embed-dropout: --method head computes the states of",
    ),
    (
        "table.csv --method head --sweep lr=0,1e-3 --sweep resid-dropout=0",
        2,
        "--sweep resid-dropout: --method",
    ),
    (
        "table.csv --layers auto",
        2,
        "--layers auto: is chosen for heads that scikit-learn fits; name one, or add",
    ),
    ("table.csv --layers 0", 2, "--layers: unknown number of layers '0'; use auto or a number from 1 on"),
    (
        "table.csv --method lora --layers 1",
        2,
        "--layers: LoRA belongs to the whole of a model; leave it",
    ),
    ("table.csv --level nucleotide --pool max", 2, "--pool: bases with labels of their own are not pooled"),
    ("table.csv --method icl --pool last", 2, "--pool: the letters of --method icl are not pooled; leave it"),
    ("table.csv --shots 2", 2, "--shots: belongs to --method icl; leave it out, or choose --method icl"),
    ("table.csv --method head --solver sklearn", 2, "--lr: --solver sklearn takes no steps; leave it out"),
    ("table.csv --label-column 2-9", 1, "no column '2-9'; the columns are sequence, label"),
    (
        "table.csv --contig-style exact",
        2,
        "--contig-style: matches names with a genome's; leave it out, or g",
    ),
    ("table.csv --max-length 0", 2, "--max-length"),
    ("table.csv --max-length 67", 1, "base: --max-length 67 is beyond what the model takes, 66 bases"),
    ("table.csv --dtype float16", 2, "float16"),
]


@pytest.mark.parametrize(("line", "code", "message"), BAD)
def test_bad_use_is_told_in_one_line(folder: Path, line: str, code: int, message: str) -> None:
    write_table(folder / "numbers.csv", [(random_dna(20, i), i / 7) for i in range(40)])
    write_fasta(folder / "kinds.fa", [(f"x{i}|{'ab'[i % 2]}", random_dna(20, i)) for i in range(40)])
    (folder / "regions.bed").write_text("chr1\t0\t10\ta\n")
    tiny = {key: value for key, value in TINY.items() if key not in ("no_baseline", "test_fraction", "rc")}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in tiny.items()]
    model = [] if " -m " in line else ["-m", "base"]
    done = hyena(*line.split(), *model, "-o", "run", *flags)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not (folder / "run" / "config.yaml").exists()


def test_a_config_runs_it_again_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items() if key != "no_baseline"]
    assert hyena("table.csv", "-m", "base", "-o", "run", "--no-baseline", "-q", *flags).exit_code == 0
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    again = hyena("--config", "../run/config.yaml", "-o", "again", "-q")
    assert again.exit_code == 0, again.output
    assert model_sha256(load_model("again")) == model_sha256(load_model("../run"))
    assert (folder / "elsewhere" / "again" / "predictions.tsv").exists()


def test_labels_may_come_from_stdin(folder: Path) -> None:
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items() if key != "no_baseline"]
    text = (folder / "table.csv").read_bytes()
    command = ["finetune", "-", "-m", "base", "-o", "run", "--no-baseline", "-q", *flags]
    done = CliRunner().invoke(app, command, input=text)
    assert done.exit_code == 0, done.output
    assert load_model(folder / "run").config.head is not None
