"""`hyena attribute` as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from hyenacli.app import app
from hyenadna.config import HeadConfig
from tests.builders import random_dna, write_bed, write_fasta
from tests.toys import save_heads

Run = Callable[..., Any]
CHR1 = random_dna(300, 1)
HEADS = {
    "binary": HeadConfig("binary", 2, ("poor", "rich"), rc=True),
    "classes": HeadConfig("multiclass", 3, ("x", "y", "z")),
    "bases": HeadConfig("binary", 2, level="nucleotide"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_heads(tmp_path_factory.mktemp("attribute"), HEADS)
    write_fasta(path / "g.fa", [("chr1", CHR1), ("chr2", "ACGTN" * 10), ("chr3", "N" * 20)])
    regions = [("chr1", 40, 60, "first"), ("chr9", 0, 5), ("chr2", 2, 12), ("chr1", 100, 190), ("chr3", 0, 9)]
    write_bed(path / "r.bed", regions)
    (path / "t.csv").write_text(f"id,sequence\na,{CHR1[40:60]}\n")
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    return lambda line, **how: CliRunner().invoke(app, ["attribute", *line.split()], **how)


@pytest.mark.parametrize("method", ["ism", "gradient"])
def test_arrays_and_a_track_of_regions(run: Run, folder: Path, method: str) -> None:
    outputs = "-o r.npz --track r.bedgraph --modisco modisco"
    line = f"r.bed -f g.fa -m binary {outputs} --method {method} --max-length 50"
    result = run(line)
    assert result.exit_code == 0, result.stderr
    assert "attributed 2 records, 1 NO_CONTIG, 1 TOO_LONG, 1 ALL_N" in result.stderr
    with np.load(folder / "r.npz") as arrays:
        values = dict(arrays)
    assert values["status"].tolist() == ["OK", "NO_CONTIG", "OK", "TOO_LONG", "ALL_N"]
    assert values["target"].tolist() == ["rich", "", "rich", "", ""]
    assert np.isnan(values["score"]).tolist() == [False, True, False, True, True]
    one_hot, attributions = values["one_hot"], values["attributions"]
    assert one_hot.shape == attributions.shape == (5, 4, 20)
    assert "".join("ACGT"[i] for i in one_hot[0].argmax(axis=0)) == CHR1[40:60]
    np.testing.assert_allclose(attributions.sum(axis=1), 0, atol=1e-5)
    assert attributions[[0, 2]].any(axis=(1, 2)).all()
    assert not one_hot[1].any()
    assert not one_hot[2, :, 10:].any()
    assert json.loads(str(values["hyena"]))["settings"]["method"] == method
    for file, array in (("ohe.npz", one_hot), ("attr.npz", attributions)):
        with np.load(folder / "modisco" / file) as arrays:
            assert np.array_equal(arrays["arr_0"], array[[0, 2]])
    lines = [line.split("\t") for line in (folder / "r.bedgraph").read_text().splitlines()]
    track = {(c, int(i)): float(v) for c, a, b, v in lines for i in range(int(a), int(b))}
    expected = (one_hot[0] * attributions[0]).sum(axis=0)
    assert [track["chr1", i] for i in range(40, 60)] == pytest.approx(expected.tolist(), rel=1e-5)
    assert {i for c, i in track if c == "chr2"} == {2, 3, 5, 6, 7, 8, 10, 11}


def test_sequences_of_a_table_and_a_target(run: Run, folder: Path) -> None:
    assert run("t.csv -m classes -o t.h5 --target z").exit_code == 0
    assert run("-r chr1:41-60 -f g.fa -m classes -o z.npz --target z").exit_code == 0
    with h5py.File(folder / "t.h5") as table, np.load(folder / "z.npz") as region:
        assert table["target"].asstr()[0] == "z"
        assert np.array_equal(table["attributions"], region["attributions"])


def test_the_likelihood_of_a_model_without_a_head_and_its_seqlets(run: Run, folder: Path) -> None:
    regions = "".join(f"-r chr1:{start}-{start + 59} " for start in (1, 61, 121, 181)) + "-r chr3:2-9"
    line = (
        f"{regions} -f g.fa -m headless -o l.npz --seqlets l.bed --fdr 1 --null 1 --flank 3 --method gradient"
    )
    result = run(line)
    assert result.exit_code == 0, result.stderr
    assert "attributed 4 records, 1 ALL_N" in result.stderr
    assert "chance is judged by" in result.stderr
    lines = [row.split("\t") for row in (folder / "l.bed").read_text().splitlines()]
    assert lines
    with np.load(folder / "l.npz") as arrays:
        assert arrays["target"].tolist()[0] == "likelihood"
        observed = (arrays["one_hot"] * arrays["attributions"]).sum(axis=1)
    for chrom, start, end, name, score, strand, total, q, bases in lines:
        assert (strand, bases) == (".", CHR1[int(start) : int(end)])
        assert 0 <= int(score) == round(1000 * (1 - float(q)))
        assert (chrom, name) == ("chr1", f"chr1:{int(start) // 60 * 60 + 1}-{int(start) // 60 * 60 + 60}")
        span = observed[int(start) // 60, int(start) % 60 : (int(end) - 1) % 60 + 1]
        assert float(total) == pytest.approx(span.sum(), rel=1e-4)
    assert (
        run("t.csv -m binary -o b.npz --target likelihood --method integrated --references 2").exit_code == 0
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-m binary -o x.npz", "nothing to attribute"),
        ("t.csv -m headless -o x.npz --target rich", "the model has no head, and so no output 'rich'"),
        ("t.csv -m binary -o x.npz --flank 5", "sequences are read whole"),
        ("t.csv -m binary -o x.npz --seqlets no/x.bed", "no"),
        ("t.csv -m bases -o x.npz", "predicts every base"),
        ("t.csv -m classes -o x.npz --target w", "no output 'w'"),
        ("t.csv -m headless -o x.npz --seqlets x.tsv", "seqlets are a BED; give it the suffix .bed"),
        ("t.csv -m classes -o x.bw", "end it with .npz or .h5"),
        ("t.csv -m classes -o x.npz --track x.bedgraph", "no coordinates"),
        ("r.bed -f g.fa -m none -o x.npz", "none"),
    ],
)
def test_mistakes_end_in_one_line(run: Run, folder: Path, line: str, message: str) -> None:
    result = run(line)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert result.stderr.count("hyena: error") == 1
    assert not (folder / "x.npz").exists()
