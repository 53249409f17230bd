"""`hyena track` against plain passes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pybigtools
import pytest
import torch
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.genome.region import Region
from hyenacli.inference.base_tracks import Tiles, base_tracks
from hyenacli.tracks import track_command
from hyenadna import Tokenizer, save_model
from tests.builders import random_dna, write_bed, write_fasta
from tests.toys import tiny_model

Run = Callable[..., Any]
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
CHR1 = random_dna(100, 1) + "NN" + random_dna(98, 2)
CONTIGS = {"chr1": CHR1, "chr2": random_dna(70, 3), "single": "A"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("track")
    save_model(tiny_model(), path / "model")
    write_fasta(path / "g.fa", CONTIGS.items())
    write_bed(path / "r.bed", [("2", 5, 25), ("chr1", 90, 150), ("chr1", 140, 160), ("chr9", 1, 2)])
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    return lambda line, verb="track": CliRunner().invoke(app, [verb, *line.split()])


def bigwig(path: Path, contig: str, start: int, end: int) -> np.ndarray:
    with pybigtools.open(str(path)) as file:
        return np.array(file.values(contig, start, end, fillna=None))


def strand_log_p(text: str, window: int, context: int) -> np.ndarray:
    """log p (L, 4) of each base given what its tile's window has before it, a plain pass for each tile."""
    result = np.full((len(text), 4), np.nan)
    step = window - context
    for tile in range(0, len(text), step):
        first = max(0, tile - context)
        ids = torch.from_numpy(Tokenizer().encode_array(text[first : tile + step].encode())).long()[None]
        with torch.no_grad():
            log_p = tiny_model().plain(ids).logits[0, :, 7:11].log_softmax(-1).numpy()
        for position in range(max(tile, 1), min(tile + step, len(text))):
            result[position] = log_p[position - 1 - first]
    return result


def expected(text: str, value: str, strand: str, window: int = 64, context: int = 8) -> np.ndarray:
    """The numbers of a contig, tile by tile."""
    step = window - context
    forward = strand_log_p(text, window, context)
    reverse_text = text.translate(COMPLEMENT)[::-1]
    reverse = np.full((len(text), 4), np.nan)
    for tile in range(0, len(text), step):
        end = min(len(text), tile + step + context)
        read = reverse_text[len(text) - end : len(text) - tile]
        ids = torch.from_numpy(Tokenizer().encode_array(read.encode())).long()[None]
        with torch.no_grad():
            log_p = tiny_model().plain(ids).logits[0, :, 7:11].log_softmax(-1).numpy()
        for position in range(tile, min(tile + step, end - 1)):
            reverse[position] = log_p[end - position - 2][::-1]
    both = np.nanmean([forward, reverse], axis=0)
    log_p = {"forward": forward, "reverse": reverse, "mean": both}[strand]
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    p = np.exp(log_p)
    entropy = -(p * log_p).sum(1) / np.log(2)
    observed = ["ACGTN".index(base) for base in text]
    log_p_base = np.array([log_p[i, b] if b < 4 else np.nan for i, b in enumerate(observed)])
    shown = {
        "logp": log_p_base,
        "entropy": entropy,
        "information": 2 - entropy,
        "logo": p * (2 - entropy)[:, None],
    }
    values = shown[value]
    values[np.array(observed) == 4] = np.nan
    return values


@pytest.mark.parametrize("strand", ["forward", "reverse", "mean"])
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_every_base_of_a_genome_once(run: Run, folder: Path, strand: str) -> None:
    result = run(f"--all -f g.fa -m model -o all.bw --strand {strand}")
    assert result.exit_code == 0, result.stderr
    for contig in ("chr1", "chr2"):
        text = CONTIGS[contig]
        actual = bigwig(folder / "all.bw", contig, 0, len(text))
        np.testing.assert_allclose(actual, expected(text, "logp", strand), atol=1e-5)
    assert "tracked 271 bases" in result.stderr
    with pytest.raises(KeyError):  # a contig without a number is not in the file
        bigwig(folder / "all.bw", "single", 0, 1)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_regions_have_the_numbers_of_the_genome(run: Run, folder: Path) -> None:
    result = run("r.bed -f g.fa -m model -o r.npz --value logo --window 40 --context 10")
    assert result.exit_code == 0, result.stderr
    assert "chr9" in result.stderr
    with np.load(folder / "r.npz") as arrays:
        assert arrays["chrom"].tolist() == ["chr1", "chr2"]
        assert arrays["start"].tolist() == [90, 5]
        assert arrays["end"].tolist() == [160, 25]
        for number, (contig, start, end) in enumerate((("chr1", 90, 160), ("chr2", 5, 25))):
            values = expected(CONTIGS[contig], "logo", "mean", 40, 10)[start:end]
            np.testing.assert_allclose(arrays[f"track_{number}"], values, atol=1e-5)


def test_a_logo_is_four_tracks_and_a_hub_shows_them(run: Run, folder: Path) -> None:
    line = "-r chr1:1-60 -f g.fa -m model -o logo.bw --value logo --hub hub --assembly hg38"
    assert run(line).exit_code == 0
    heights = [bigwig(folder / f"logo.{base}.bw", "chr1", 0, 60) for base in "ACGT"]
    assert run("-r chr1:1-60 -f g.fa -m model -o information.bw --value information").exit_code == 0
    information = bigwig(folder / "information.bw", "chr1", 0, 60)
    np.testing.assert_allclose(np.sum(heights, axis=0), information, atol=1e-5)
    text = (folder / "hub" / "trackDb.txt").read_text()
    assert text.count("bigDataUrl ../logo.") == 4
    assert "genome hg38" in (folder / "hub" / "genomes.txt").read_text()
    assert run("-r chr1:1-60 -f g.fa -m model -o p.bw --hub hub2 --assembly hg38").exit_code == 0
    assert "logo on" in (folder / "hub2" / "trackDb.txt").read_text()


def test_of_several_processes_the_last_writes_the_hub(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        assert not (folder / "hub4").exists()
        monkeypatch.setenv("RANK", str(rank))
        line = "-r chr1:1-60 -f g.fa -m model -o two.bw --value logo --hub hub4 --assembly hg38"
        assert run(line).exit_code == 0
    assert (folder / "hub4" / "trackDb.txt").read_text().count("bigDataUrl ../two.") == 4


def test_shards_and_batches_change_nothing(run: Run, folder: Path) -> None:
    assert run("--all -f g.fa -m model -o w.bedgraph").exit_code == 0
    for number in (1, 2, 3):
        line = f"--all -f g.fa -m model -o s{number}.bedgraph --shard {number}/3 -b 1"
        assert run(line).exit_code == 0
    assert run("s2.bedgraph s1.bedgraph s3.bedgraph -o joined.bedgraph", verb="merge").exit_code == 0

    def rows(path: Path) -> np.ndarray:
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        return np.array([[float(start), float(end), float(value)] for _, start, end, value in lines])

    np.testing.assert_allclose(rows(folder / "joined.bedgraph"), rows(folder / "w.bedgraph"), atol=1e-4)


def test_pieces_are_cut_at_the_bounds_of_tiles() -> None:
    tiles = Tiles(16, 4)
    for start, end in ((0, 0), (0, 16), (3, 9), (5, 16), (15, 70), (32, 64)):
        bases = [
            tiles.pieces(Region("c", start, end), slice(*bounds)) for bounds in ((0, 2), (2, 3), (3, None))
        ]
        pieces = [piece for part in bases for piece in part]
        assert pieces == list(tiles.pieces(Region("c", start, end)))
        assert [i for piece in pieces for i in range(piece.start, piece.end)] == list(range(start, end))
        assert (
            len({piece.start // 16 for piece in pieces})
            == len(pieces)
            == tiles.count(Region("c", start, end))
        )
        assert all(piece.start // 16 == (piece.end - 1) // 16 for piece in pieces)
    far = Region("c", 1, 10**15)  # those before are not gone through
    assert list(tiles.pieces(far, slice(10**13, 10**13 + 1))) == [Region("c", 16 * 10**13, 16 * 10**13 + 16)]


@pytest.mark.parametrize("output", ["x.bedgraph", "x.bw"])
def test_an_interrupted_run_goes_on(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    line = f"--all -f g.fa -m model --window 24 --context 4 --value logo -o {output}"

    def read(name: str) -> np.ndarray:
        if name.endswith("bw"):
            return bigwig(folder / name, "chr1", 0, 200)
        rows = [row.split("\t") for row in (folder / name).read_text().splitlines()]
        return np.concatenate([np.full(int(end) - int(start), float(value)) for _, start, end, value in rows])

    assert run(line).exit_code == 0
    names = [output.replace(".", f".{letter}.") for letter in "ACGT"]
    expected = list(map(read, names))
    for name in names:
        (folder / name).unlink()
    monkeypatch.setattr(track_command, "PART_TILES", 4)
    pieces, budgets = base_tracks, list[Any]()

    def fail_at_the_third(*arguments: Any, **how: Any) -> Any:
        budgets.append(how["budget"])
        if len(list((folder / f"{names[0]}.unfinished").glob("x.A.*"))) == 2:
            raise KeyboardInterrupt
        return pieces(*arguments, **how)

    monkeypatch.setattr(track_command, "base_tracks", fail_at_the_third)
    assert run(line).exit_code == 130
    assert not (folder / names[0]).exists()
    refused = run(line)
    assert "add --resume to go on with it" in refused.stderr
    other = run(f"{line} --resume --strand forward")
    assert "was left by a run with another strand" in other.stderr
    assert len(budgets) == 3
    assert budgets[0] is budgets[2]  # what memory allows is learnt once
    changed = (folder / "g.fa").stat()
    os.utime(folder / "g.fa", ns=(changed.st_atime_ns, changed.st_mtime_ns + 1_000_000_000))
    assert "was left by a run with another genome" in run(f"{line} --resume").stderr
    os.utime(folder / "g.fa", ns=(changed.st_atime_ns, changed.st_mtime_ns))
    parts = folder / f"{names[0]}.unfinished"
    kept = list(parts.glob("x.*"))
    monkeypatch.setattr(track_command, "base_tracks", pieces)
    hub = " --hub hub3 --assembly hg38" if output.endswith("bw") else ""
    resumed = run(f"{line} --resume -b 2{hub}")
    assert resumed.exit_code == 0, resumed.stderr
    assert len(kept) == 8
    assert "tracked 131 bases" in resumed.stderr
    assert "beside 7 tiles of the interrupted run" in resumed.stderr
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_allclose(read(name), values, atol=1e-5)
    assert not parts.exists()
    assert not list(folder.glob(".x*"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--all -f g.fa -m model -o x.bw --resume --shard 1/2", "take more shards to lose less"),
        ("-f g.fa -m model -o x.bw", "no regions"),
        ("r.bed --all -f g.fa -m model -o x.bw", "several kinds"),
        ("--all -f g.fa -m model -o - --value logo", "a logo is four tracks; name a file"),
        ("--all -f g.fa -m model -o x.tsv", "names no table type"),
        ("--all -f g.fa -m model -o x.npz --shard 1/2", "no shards"),
        ("--all -f g.fa -m model -o x.bw --window 999", "takes at most"),
        ("--all -f g.fa -m model -o x.bw --window 9 --context 9", "leaves no base"),
        ("--all -f g.fa -m model -o x.bw --hub h", "--assembly"),
        ("--all -f g.fa -m model -o x.bw --assembly hg38", "is the genome of a hub; add --hub FOLDER"),
        ("--all -f g.fa -m model -o x.bw --hub h --assembly hg38 --shard 1/2", "whole tracks, not shards"),
        ("--all -f g.fa -m model -o x.bedgraph --hub h --assembly hg38", "a hub shows bigWigs"),
    ],
)
def test_mistakes_end_in_one_line(run: Run, folder: Path, line: str, message: str) -> None:
    result = run(line)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not (folder / "x.bw").exists()
