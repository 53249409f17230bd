import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from tests.builders import random_dna, write_fasta

CONTIGS = {"chr1": 5000, "22:20000001-21000000": 1_000_000, "HLA:01": 7, "two": 50, "two:1-5": 9, "none": 0}

GOOD = [
    ("chr1", "chr1", 0, 5000),
    ("chr1:", "chr1", 0, 5000),
    ("chr1:100", "chr1", 99, 5000),
    ("chr1:100-", "chr1", 99, 5000),
    ("chr1:100-200", "chr1", 99, 200),
    ("chr1:1,000-2,000", "chr1", 999, 2000),
    ("chr1:-200", "chr1", 0, 200),
    ("chr1:7-7", "chr1", 6, 7),
    ("chr1:1-5000", "chr1", 0, 5000),
    ("chr1:4000-20,000,000", "chr1", 3999, 5000),
    ("chr1:5000-5001", "chr1", 4999, 5000),
    ("{chr1}:3-5", "chr1", 2, 5),
    ("{chr1}", "chr1", 0, 5000),
    ("22:20000001-21000000", "22:20000001-21000000", 0, 1_000_000),
    ("22:20000001-21000000:1-10", "22:20000001-21000000", 0, 10),
    ("{22:20000001-21000000}:5", "22:20000001-21000000", 4, 1_000_000),
    ("HLA:01", "HLA:01", 0, 7),
    ("two:2-5", "two", 1, 5),
    ("{two:1-5}", "two:1-5", 0, 9),
    ("{two}:1-5", "two", 0, 5),
]


@pytest.mark.parametrize(("text", "contig", "start", "end"), GOOD)
def test_spellings(text: str, contig: str, start: int, end: int) -> None:
    assert Region.parse(text, CONTIGS) == Region(contig, start, end)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr9", "chr9: no contig 'chr9'; did you mean 'chr1'?"),
        (
            "zzzzz:1-2",
            "no contig 'zzzzz'; the contigs are chr1, 22:20000001-21000000, HLA:01, two, two:1-5, ... (6 in",
        ),
        ("{chr}:1-2", "no contig 'chr'; did you mean 'chr1'?"),
        ("{chr1:1-2", "the brace is not closed"),
        ("{chr1}1-2", "the brace is not closed"),
        ("chr1:abc", "'abc' is not a pair of positions"),
        ("chr1:1-2-3", "'1-2-3' is not a pair of positions"),
        ("chr1:-", "'-' is not a pair of positions"),
        ("chr1:1_0-20", "'1_0-20' is not a pair of positions"),
        ("chr1:٣-٤", "is not a pair of positions"),
        ("chr1:" + "9" * 5000, "is not a pair of positions"),
        ("chr1:0-100", "position 0 does not exist"),
        ("chr1:200-100", "end 100 is before start 200; swap the two"),
        ("chr1:5001-5002", "outside the contig: chr1 has 5,000 bases"),
        ("chr1:5001", "outside the contig: chr1 has 5,000 bases"),
        (
            "two:1-5",
            "both 'two:1-5' and 'two' are contigs; write {two:1-5} for the whole contig or {two}:1-5",
        ),
        ("none", "contig none has no bases"),
    ],
)
def test_errors_name_the_fault(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        Region.parse(text, CONTIGS)
    assert message in str(error.value)


@given(st.sampled_from(["chr1", "22:20000001-21000000", "HLA:01"]), st.data())
def test_text_and_back(contig: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, CONTIGS[contig] - 1))
    region = Region(contig, start, data.draw(st.integers(start + 1, CONTIGS[contig])))
    assert Region.parse(str(region), CONTIGS) == region
    assert len(region) == region.end - region.start


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4)])
def test_an_impossible_region_is_a_bug(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="not a region"):
        Region("chr1", start, end)


@pytest.mark.skipif(shutil.which("samtools") is None, reason="samtools is not installed")
def test_same_bases_as_samtools(tmp_path: Path) -> None:
    contigs = {
        name: random_dna(min(length, 3000), seed)
        for seed, (name, length) in enumerate(CONTIGS.items())
        if length
    }
    path = write_fasta(tmp_path / "g.fa", contigs.items())
    lengths = {name: len(bases) for name, bases in contigs.items()}
    for text in (
        "chr1:100",
        "chr1:100-",
        "chr1:1,000-2,000",
        "chr1:-200",
        "{two:1-5}:2-3",
        "22:20000001-21000000:9-99",
        "chr1:2,990-20,000,000",
    ):
        shown = subprocess.run(
            ["samtools", "faidx", path, text], capture_output=True, text=True, check=True
        ).stdout
        region = Region.parse(text, lengths)
        assert contigs[region.contig][region.start : region.end] == "".join(shown.split("\n")[1:])
