"""Genomes in the cache: the same bases as the FASTA, read once."""

import os
from pathlib import Path

import numpy as np
import pytest

from hyenacli.errors import UserError
from hyenacli.readers import token_store as store
from hyenacli.readers.token_store import SOFT_MASKED, count_bases, open_genomes, plain_tokens
from hyenadna import Tokenizer
from tests.builders import Compression, write_fasta


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hyena" / "genomes"


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_codes_are_the_bases_and_their_case(tmp_path: Path, compression: Compression) -> None:
    records = [("a", "ACGTacgtNnRy"), ("empty", ""), ("b", "ttTT"), ("gap", "NNNN")]
    path = write_fasta(tmp_path / "g.fa", records, width=5, compression=compression)
    (genome,) = open_genomes([path])
    assert [(c.name, len(c), c.n_bases) for c in genome.contigs] == [("a", 12, 8), ("b", 4, 4), ("gap", 4, 0)]
    assert [c.n_soft_masked for c in genome.contigs] == [6, 2, 0]
    first = genome.contigs[0]
    assert Tokenizer().decode(first.tokens(0, 99)) == "ACGTACGTNNNN"
    assert (first.codes >= SOFT_MASKED).tolist() == [letter.islower() for letter in "ACGTacgtNnRy"]
    assert genome.fingerprint() == store.fingerprint(path)


def test_a_second_opening_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", [("a", "ACGT" * 50)])
    (once,) = open_genomes([path])
    with monkeypatch.context() as patch:
        patch.setattr(store, "_build", None)
        (again,) = open_genomes([path])
    assert np.array_equal(once.contigs[0].codes, again.contigs[0].codes)
    assert again.sha256 == once.sha256
    assert isinstance(again.contigs[0].codes, np.memmap)
    write_fasta(path, [("a", "TTTT" * 50)])
    os.utime(path, ns=(1, 1))
    assert (plain_tokens(open_genomes([path])[0].contigs[0].codes) == 10).all()
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([("a", "ACGT"), ("a", "AC")], "contig 'a' occurs twice"),
        ([("a", "NNNN")], "no A, C, G or T in any record"),
        ([("a", "")], "no A, C, G or T in any record"),
        ([("a", "ACGT-")], "'-' in record 'a' is not a nucleotide code"),
    ],
)
def test_what_is_no_genome(tmp_path: Path, records: list[tuple[str, str]], message: str, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", records)
    with pytest.raises(UserError, match=message):
        open_genomes([path])
    assert not list(cache.glob(".building*"))


def test_the_same_genome_twice_is_refused(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", [("a", "ACGT")])
    copy = write_fasta(tmp_path / "copy.fa", [("a", "ACGT")])
    with pytest.raises(UserError, match=r"copy\.fa: has the same contents as .*g\.fa; give it once"):
        open_genomes([path, copy])


def test_bases_are_counted_without_n() -> None:
    assert count_bases(Tokenizer().encode_array("ACGTNN")) == 4
