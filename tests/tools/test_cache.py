"""`hyena cache`: what is kept, and where."""

from pathlib import Path

import pytest

from hyenacli.app import app
from hyenacli.readers.genome import Genome
from tests.builders import write_fasta


def hyena(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    with pytest.raises(SystemExit) as end:
        app(["cache", *arguments], prog_name="hyena")
    assert end.value.code == 0
    done = capsys.readouterr()
    return done.out, done.err


def test_the_cache_is_listed_and_emptied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYENA_CACHE", str(tmp_path / "cache"))
    fasta = write_fasta(tmp_path / "a.fa", [("chr1", "ACGT" * 300)])
    with Genome(fasta) as genome:
        out, err = hyena(capsys, "list")
        assert out.splitlines()[0].split("\t") == ["entry", "megabytes", "made_utc"]
        assert out.splitlines()[1].startswith("a.fa-")
        assert f"{tmp_path}/cache/genomes: 1 entry, 0.0 MB" in err
        assert "removed 1 genome, 0.0 MB" in hyena(capsys, "clean")[1]
        assert not list((tmp_path / "cache" / "genomes").iterdir())
        assert "0 entries" in hyena(capsys, "list")[1]
        assert genome.fetch("chr1", 0, 4) == b"ACGT"  # an open genome goes on
    with Genome(fasta) as genome:
        assert genome.fetch("chr1", 1, 5) == b"CGTA"
