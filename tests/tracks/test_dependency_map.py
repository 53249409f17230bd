"""`hyena dependency-map` as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.errors import UserError
from hyenacli.inference.decay import Decay
from hyenacli.inference.dependency import MapOptions, dependency_maps
from hyenacli.readers.records import SequenceRecord
from hyenacli.tracks import dependency_map_command
from hyenadna import save_model
from tests.builders import random_dna, write_bed, write_fasta
from tests.toys import tiny_model

Run = Callable[..., Any]
CHR1 = random_dna(300, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map")
    save_model(tiny_model(), path / "model")
    write_fasta(path / "g.fa", [("chr1", CHR1), ("chr2", "ACGTN" * 10)])
    write_bed(
        path / "r.bed", [("chr1", 40, 60, "first"), ("chr9", 0, 5), ("chr2", 2, 12), ("chr1", 100, 190)]
    )
    (path / "t.csv").write_text("sequence\nACGTACGT\n")
    write_fasta(path / "s.fa", [("a", "ACGTAC")])
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    return lambda line, **how: CliRunner().invoke(app, ["dependency-map", *line.split()], **how)


def test_maps_influence_and_pictures_of_regions(run: Run, folder: Path) -> None:
    result = run(
        "r.bed -f g.fa -m model -o r.npz --flank 10 --influence r.bedgraph --plot pictures --plot-type png"
    )
    assert result.exit_code == 0, result.stderr
    assert "mapped 2 records, 1 NO_CONTIG, 1 TOO_LONG" in result.stderr
    assert "bases are more than" in result.stderr
    assert "map a part of it, or raise --max-length" in result.stderr
    with np.load(folder / "r.npz") as arrays:
        values = dict(arrays)
    assert values["status"].tolist() == ["OK", "NO_CONTIG", "OK", "TOO_LONG"]
    assert values["id"].tolist()[:2] == ["first", "chr9:1-5"]
    assert values["start"].tolist() == [40, 0, 2, 100]
    assert values["sequence"].tolist() == [CHR1[40:60], "", "GTNACGTNAC", ""]
    assert set(values) >= {"map_0", "map_2"}
    assert not {"map_1", "map_3"} & set(values)
    record = SequenceRecord("first", "chr1", 40, 60, bases=CHR1[30:70].encode(), left=10)
    (answer,) = dependency_maps(tiny_model(), [record], MapOptions())
    np.testing.assert_allclose(values["map_0"], answer.values_LL, atol=1e-6)
    assert json.loads(str(values["hyena"]))["settings"]["measure"] == "log2odds"
    pictures = sorted(path.name for path in (folder / "pictures").iterdir())
    assert pictures == ["1_chr1_41-60.png", "3_chr2_3-12.png"]
    lines = [line.split("\t") for line in (folder / "r.bedgraph").read_text().splitlines()]
    influence = {(c, int(i)): float(v) for c, a, b, v in lines for i in range(int(a), int(b))}
    assert influence["chr1", 47] == pytest.approx(answer.influence()[7], rel=1e-5)
    assert {i for c, i in influence if c == "chr2"} == {2, 3, 5, 6, 7, 8, 10, 11}


def test_an_svg_shows_the_bases(run: Run, folder: Path) -> None:
    assert run("-r chr1:11-20 -f g.fa -m model -o x.h5 --plot svg").exit_code == 0
    text = (folder / "svg" / "1_chr1_11-20.svg").read_text()
    assert "chr1:11-20" in text
    assert "base that is substituted" in text
    with h5py.File(folder / "x.h5") as file:
        assert file["map_0"].shape == (10, 10)
        assert file["sequence"].asstr()[0] == CHR1[10:20]
        assert "axes" in json.loads(file.attrs["hyena"])


def test_a_bed_without_regions_gives_a_file_without_maps(run: Run, folder: Path) -> None:
    (folder / "empty.bed").write_text("# no region\n")
    assert run("empty.bed -f g.fa -m model -o x.h5").exit_code == 0
    with h5py.File(folder / "x.h5") as file:
        assert file["id"].shape == file["start"].shape == (0,)


def test_sequences_need_no_genome(run: Run, folder: Path) -> None:
    write_fasta(folder / "s.fa", [("a", "ACGTACGT"), ("none", "")])
    assert run("s.fa -m model -o s.npz --measure logp --symmetrize max").exit_code == 0
    with np.load(folder / "s.npz") as arrays:
        assert arrays["status"].tolist() == ["OK", "EMPTY"]
        assert np.array_equal(arrays["map_0"], arrays["map_0"].T)


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_shards_join_to_the_whole(run: Run, folder: Path, kind: str) -> None:
    line = "r.bed -f g.fa -m model --flank 10"
    assert run(f"{line} -o all.{kind} --influence all.bedgraph").exit_code == 0
    for shard in (1, 2):
        result = run(f"{line} -o {shard}.{kind} --influence {shard}.bedgraph --shard {shard}/2")
        assert result.exit_code == 0, result.stderr
    for suffix in (kind, "bedgraph"):
        result = CliRunner().invoke(app, ["merge", f"2.{suffix}", f"1.{suffix}", "-o", f"joined.{suffix}"])
        assert result.exit_code == 0, result.stderr
    assert (folder / "joined.bedgraph").read_text() == (folder / "all.bedgraph").read_text()
    if kind == "h5":
        with h5py.File(folder / "all.h5") as a, h5py.File(folder / "joined.h5") as b:
            assert set(a) == set(b)
            for name in a:
                np.testing.assert_array_equal(a[name][...], b[name][...])
            return
    with np.load(folder / "all.npz") as a, np.load(folder / "joined.npz") as b:
        assert set(a) == set(b)
        for name in set(a) - {"hyena"}:
            np.testing.assert_array_equal(a[name], b[name])
    wrong = CliRunner().invoke(app, ["merge", "1.npz", "2.npz", "-o", "x.tsv"])
    assert "the shards are npz" in wrong.stderr


def test_the_change_falls_with_the_distance(run: Run, folder: Path) -> None:
    line = "-r chr1:11-30 -r chr1:51-60 -f g.fa -m model -o d.npz --decay d.tsv --decay-plot d.svg"
    result = run(line)
    assert result.exit_code == 0, result.stderr
    rows = [row.split("\t") for row in (folder / "d.tsv").read_text().splitlines()]
    assert rows[0] == ["distance", "after", "before", "share"]
    with np.load(folder / "d.npz") as arrays:
        maps = [arrays["map_0"], arrays["map_1"]]
    for distance in (1, 7, 15):
        expected = np.concatenate([np.diagonal(m, distance) for m in maps]).mean()
        assert float(rows[distance][1]) == pytest.approx(expected, rel=1e-5)
        expected = np.concatenate([np.diagonal(m, -distance) for m in maps]).mean()
        assert float(rows[distance][2]) == pytest.approx(expected, rel=1e-5)
    assert (len(rows), float(rows[-1][3])) == (20, 1)
    assert "of 19 bases" in result.stderr
    assert "filters of layer 1" in (folder / "d.svg").read_text()


def test_a_decay_that_fails_leaves_the_maps(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UserError("no room for it")

    monkeypatch.setattr(dependency_map_command, "write_decay", fail)
    result = run("-r chr1:11-20 -f g.fa -m model -o kept.npz --decay kept.tsv")
    assert result.exit_code == 1
    with np.load(folder / "kept.npz") as arrays:
        assert arrays["map_0"].shape == (10, 10)
    monkeypatch.setattr(Decay, "add", fail)  # nobody asks for it
    assert run("-r chr1:11-20 -f g.fa -m model -o x2.npz").exit_code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r.bed -f g.fa -m model -o x.npz --influence - --decay -", "-: two outputs cannot share stdout"),
        ("-m model -o x.npz", "nothing to map"),
        ("r.bed -f g.fa -m model -o x.tsv", "end it with .npz or .h5"),
        ("r.bed -f g.fa -m model -o x.npz --influence x.txt", "names no table type"),
        ("-r chr1:1-5 -r chr1:5-9 -f g.fa -m model -o x.npz --influence x.bedgraph", "bases in common"),
        ("t.csv -m model -o x.npz --influence x.bedgraph", "no coordinates, which a bedgraph needs"),
        ("s.fa -m model -o x.npz --influence x.bw", "no coordinates, which a bw needs"),
        ("-r chr3:1-5 -f g.fa -m model -o x.npz", "chr3"),
        ("r.bed -f g.fa -m none -o x.npz", "none"),
        ("r.bed -f g.fa -m model -o x.npz --shard 1/2 --decay d.tsv", "only a part of the maps"),
        ("r.bed -f g.fa -m model -o x.npz --decay d.txt", "names no table type"),
        ("r.bed -f g.fa -m model -o x.npz --decay-plot d.png", "the plot is an SVG; give it the suffix .svg"),
    ],
)
def test_mistakes_end_in_one_line(run: Run, folder: Path, line: str, message: str) -> None:
    result = run(line)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert result.stderr.count("hyena: error") == 1
    assert not (folder / "x.npz").exists()
