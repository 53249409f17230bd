"""What runs and outputs leave for MultiQC, and what MultiQC reads of it (`make multiqc` installs it)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.embed.settings import EmbedSettings
from hyenacli.errors import UsageError
from hyenacli.writers.multiqc import sample_name, write_statuses
from hyenadna import save_model
from tests.builders import random_dna, write_bed, write_fasta
from tests.finetunes import base_model, two_classes
from tests.runs import command
from tests.toys import tiny_model

pytestmark = pytest.mark.usefixtures("without_figures")

ROOT = Path(__file__).parents[2]
ENVIRONMENT = Path(os.environ.get("HYENA_MULTIQC", ROOT / ".multiqc"))


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A folder of two runs and two tables, each with its files for MultiQC."""
    genome = write_fasta(tmp_path / "g.fa", [("chr1", random_dna(600)), ("chr2", random_dna(300, 1))])
    folder, model = tmp_path / "out", tmp_path / "model"
    folder.mkdir()
    save_model(tiny_model(), model)
    run(*command(genome, folder / "lungs_counts"), "--multiqc")
    data, base = two_classes(tmp_path / "data.csv", 60), base_model(tmp_path / "base")
    tuning = ["--epochs", 2, "--device", "cpu", "--no-baseline", "--multiqc"]
    run("finetune", data, "-m", base, "-o", folder / "tuned", *tuning)
    bed = write_bed(tmp_path / "r.bed", [("chr1", 0, 50), ("chr2", 10, 40), ("chrX", 0, 9)])
    run("embed", bed, "-f", genome, "-m", model, "-o", folder / "peaks.sorted.tsv.gz", "--multiqc")
    vcf = tmp_path / "v.tsv"
    vcf.write_text("chrom\tpos\tref\talt\nchr1\t100\tN\tA\nchrX\t1\tA\tC\n")
    run("score-variants", vcf, "-f", genome, "-m", model, "-o", folder / "calls_qual.vcf", "--multiqc")
    return folder


def test_runs_and_outputs_leave_sections(outputs: Path) -> None:
    sections: dict[str, Any] = {}
    for path in outputs.rglob("*_mqc.json"):
        section = json.loads(path.read_text())
        assert section["pconfig"]["id"] == f"{section['id']}_plot"
        sections[section["id"]] = section["data"]
    assert sections["hyena_embed_statuses"] == {"peaks-sorted": {"OK": 2, "NO_CONTIG": 1}}
    assert sections["hyena_score_variants_statuses"] == {
        "calls-qual": {"OK": 0, "N_ALLELE": 1, "NO_CONTIG": 1}
    }
    assert list(sections["hyena_pretraining_loss"]) == ["lungs-counts-training", "lungs-counts-held-out"]
    assert sections["hyena_pretraining_loss"]["lungs-counts-held-out"].keys() == {"0.0", "3.0", "6.0"}
    assert len(sections["hyena_pretraining_loss"]["lungs-counts-training"]) == 6
    metrics = json.loads((outputs / "tuned" / "metrics.json").read_text())
    expected = {
        f"{split} {name}": metric["value"]
        for split, result in metrics["splits"].items()
        for name, metric in result["metrics"].items()
        if metric["value"] is not None
    }
    assert sections["hyena_fine_tuning_metrics"] == {"tuned": {"steps": metrics["steps"], **expected}}


def test_a_sample_needs_a_name() -> None:
    with pytest.raises(UsageError, match="stdout has no name"):
        EmbedSettings(model="m", output=Path("-"), multiqc=True)


@pytest.mark.slow
def test_multiqc_reads_every_section(outputs: Path, tmp_path: Path) -> None:
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is absent: `make multiqc` builds it")
    # names that its own patterns would cut, an output each
    script = "import json, multiqc; c = multiqc.config; print(json.dumps(c.fn_clean_exts + c.fn_clean_trim))"
    listed = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout
    patterns = [pattern for pattern in json.loads(listed) if isinstance(pattern, str) and "/" not in pattern]
    names = [f"s{i}{pattern}x" for i, pattern in enumerate(patterns)]
    names += [f"e{i}{pattern}" for i, pattern in enumerate(patterns)]
    for name in names:
        write_statuses(tmp_path / "out" / f"{name}.parquet", "predict", {"OK": 3})
    multiqc = [python, "-m", "multiqc", tmp_path / "out", "-o", tmp_path / "report", "--no-ai", "--quiet"]
    subprocess.run(multiqc, check=True, capture_output=True)
    read: dict[str, Any] = {}
    for path in (tmp_path / "report" / "multiqc_data").glob("multiqc_hyena*.txt"):
        header, *rows = (line.split("\t") for line in path.read_text().splitlines())
        read[path.stem] = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    assert set(read["multiqc_hyena_predict_statuses_plot"]) == {sample_name(name) for name in names}
    assert len(names) == len(read["multiqc_hyena_predict_statuses_plot"])
    assert read["multiqc_hyena_embed_statuses_plot"] == {"peaks-sorted": {"OK": "2", "NO_CONTIG": "1"}}
    losses = read["multiqc_hyena_pretraining_loss_plot"]
    written = json.loads((outputs / "lungs_counts" / "hyena_loss_mqc.json").read_text())["data"]
    assert losses.keys() == written.keys()
    for name, points in written.items():
        assert {step: float(loss) for step, loss in losses[name].items() if loss} == points
    metrics = json.loads((outputs / "tuned" / "hyena_metrics_mqc.json").read_text())["data"]["tuned"]
    assert {
        k: float(v) for k, v in read["multiqc_hyena_fine_tuning_metrics_plot"]["tuned"].items()
    } == metrics
