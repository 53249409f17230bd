"""The parts of an input: which records each has, and what tells the inputs of a run apart."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.errors import UsageError
from hyenacli.readers.shards import Shard, fingerprint, parse_shard, survey_fasta


@given(st.integers(0, 200), st.integers(1, 30))
def test_parts_are_all_of_it_once_in_order_and_of_like_size(total: int, of: int) -> None:
    parts = [Shard(number, of).part(total) for number in range(1, of + 1)]
    assert [place for part in parts for place in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/", "/2", "-1/2", "1/2/3", "1.0/2", ""])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard: unknown shard '.*'; use i/n"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("x.v2.parquet", "x.v2.shard-2-of-3.parquet"),
        ("x.tsv.gz", "x.shard-2-of-3.tsv.gz"),
        ("x", "x.shard-2-of-3"),
    ],
)
def test_names_keep_what_says_the_type(tmp_path: Path, name: str, shard: str) -> None:
    assert Shard(2, 3).path(tmp_path / name) == tmp_path / shard


def test_a_fingerprint_is_of_records_order_and_genome() -> None:
    prints = [
        fingerprint(["a", "b"], {"1": 5}),
        fingerprint(["b", "a"], {"1": 5}),
        fingerprint(["ab"], {"1": 5}),
        fingerprint(["a", "b"], {"1": 6}),
    ]
    assert len(set(prints)) == 4
    assert fingerprint(["a", "b"], {"1": 5}) == prints[0]


def test_fasta_is_counted_where_it_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "s.fa"
    path.write_text(">a\nAC\nGT\n>b\n>a\nN\n")
    count, sha256 = survey_fasta(path)
    assert (count, len(sha256)) == (3, 64)
    path.write_text(">a\nAC\nGT\n>b\n>a\nA\n")
    assert survey_fasta(path) != (count, sha256)
    for stream in ("-", "/dev/null"):
        with pytest.raises(UsageError, match="a stream cannot be read twice"):
            survey_fasta(Path(stream))
