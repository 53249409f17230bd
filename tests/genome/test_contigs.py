import re
from pathlib import Path

import pytest

from hyenacli.errors import UserError
from hyenacli.genome.contigs import ContigMap, match_contigs
from hyenacli.readers.genome import Genome
from hyenacli.readers.text import open_binary


def match(names: str, genome: str, style: str = "auto", **aliases: str) -> ContigMap:
    return match_contigs(
        names.split(), genome.split(), style=style, aliases=aliases, input_name="in.bed", genome_name="g.fa"
    )


@pytest.mark.parametrize(
    ("names", "genome", "expected"),
    [
        ("chr1 chrX", "1 X", "1 X"),
        ("1 X", "chr1 chrX", "chr1 chrX"),
        ("1", "Chr1 Chr2", "Chr1"),
        ("chrI chrXVI chrM", "I II XVI Mito", "I XVI Mito"),
        ("MT", "chrM", "chrM"),
        ("M", "MT", "MT"),
        ("chrMito", "chrM", "chrM"),
        ("chr1", "chr1 1", "chr1"),
        ("chrM MT", "chrM MT", "chrM MT"),
        ("chr1 chrUn", "1", "1 -"),
    ],
)
def test_styles_are_mapped(names: str, genome: str, expected: str) -> None:
    contigs = match(names, genome)
    assert " ".join(contigs.resolve(name) or "-" for name in names.split()) == expected


def test_names_not_asked_about_before_resolve_too() -> None:
    assert match("1", "chr1 chr2").resolve("2") == "chr2"
    assert match("", "chr1").summary() == "matched 0/0 contigs"


def test_exact_style_maps_nothing() -> None:
    contigs = match("chr1 2", "chr1 chr2", "exact")
    assert (contigs.resolve("chr1"), contigs.resolve("2"), contigs.missing) == ("chr1", None, ("2",))


def test_aliases_go_first_and_may_join_names() -> None:
    contigs = match("A B 1", "chr1 chr2", A="chr2", B="2")
    assert [contigs.resolve(name) for name in ("A", "B", "1")] == ["chr2", "chr2", "chr1"]


def test_summary_names_what_is_matched_by_another_spelling() -> None:
    assert match("chr1 chr2 chrM", "1 2").summary() == "matched 2/3 contigs, chr1 read as 1, chr2 read as 2"
    assert match("1 2 MT", "chr1 chr2 chrM").summary().startswith("matched 3/3 contigs, MT read as chrM, 1 r")
    assert match("A chr1", "1 chr1", A="1").summary() == "matched 2/2 contigs"


def test_contigs_that_the_genome_lacks_are_counted() -> None:
    assert match("1 a b a", "1").warnings() == ["2 of 3 contigs are not in g.fa: a (2 records), b (1 record)"]
    [line] = match("1 a b c d e f", "1").warnings()
    assert line.endswith("d (1 record), e (1 record), ... (6 in all)")


DIFFER = "contigs differ in length from those of g.fa, another build of the genome?"
REFUSED = "other spellings are matched only by --contig-aliases FILE"


def judge(style: str, aliases: dict[str, str], **declared: int) -> ContigMap:
    return match_contigs(
        {"chr1": 5, "MT": 20},
        {"chr1": 1000, "chrM": 16571},
        style=style,
        aliases=aliases,
        input_name="v.vcf",
        genome_name="g.fa",
        declared=declared,
    )


def test_another_spelling_of_another_length_is_refused() -> None:
    contigs = judge("auto", {}, chr1=1000, MT=16569)
    assert (contigs.resolve("MT"), contigs.missing) == (None, ("MT",))
    assert contigs.warnings() == [
        "1 of 2 contigs are not in g.fa: MT (20 records)",
        f"{DIFFER} MT of 16,569 bases and chrM of 16,571; {REFUSED}",
    ]
    assert judge("auto", {}, chr1=1000).resolve("MT") == "chrM"
    assert judge("auto", {}, chr1=1000, MT=16571).warnings() == []


def test_an_equal_name_and_an_alias_of_another_length_are_warned_of() -> None:
    contigs = judge("auto", {"MT": "chrM"}, chr1=999, MT=16569)
    assert (contigs.resolve("MT"), contigs.resolve("chr1")) == ("chrM", "chr1")
    assert contigs.warnings() == [
        f"{DIFFER} chr1 of 999 bases and chr1 of 1,000, MT of 16,569 bases and chrM of 16,571"
    ]


def test_no_contig_of_the_right_length_is_an_error() -> None:
    with pytest.raises(UserError, match=re.escape(f"v.vcf: {DIFFER} chr1 of 9 bases and 1 of 20; {REFUSED}")):
        match_contigs(
            {"chr1": 3},
            {"1": 20},
            style="auto",
            aliases={},
            input_name="v.vcf",
            genome_name="g.fa",
            declared={"chr1": 9},
        )


@pytest.mark.parametrize(
    ("names", "genome", "style", "message"),
    [
        (
            "a b",
            "1 2 3 4 5 6",
            "auto",
            "in.bed: no contig of this input is in g.fa: the input has a, b, the genome 1,",
        ),
        (
            "a",
            "1 2 3 4 5 6",
            "auto",
            "the genome 1, 2, 3, 4, 5, ... (6 in all); use the genome the coordinates",
        ),
        ("chr1", "1", "exact", "map the names with --contig-style auto or --contig-aliases FILE"),
        ("NC_1", "chr1", "auto", "map the names with --contig-aliases FILE"),
        ("1", "chr1 Chr1", "auto", "in.bed: contig '1' could be any of chr1, Chr1 in g.fa; say which with"),
        (
            "chrM MT",
            "chrM",
            "auto",
            "in.bed: 'chrM' and 'MT' would both be 'chrM' of g.fa; use --contig-style exact",
        ),
    ],
)
def test_errors(names: str, genome: str, style: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        match(names, genome, style)
    assert message in str(error.value)


def test_yeast_annotation_names_match_the_genome(shared: Path) -> None:
    with open_binary(shared / "data" / "annotation" / "yeast_sacCer3.gtf.gz") as lines:
        names = dict.fromkeys(line.split(b"\t")[0].decode() for line in lines if not line.startswith(b"#"))
    with Genome(shared / "data" / "genomes" / "yeast_R64.fa.gz") as genome:
        contigs = match(" ".join(names), " ".join(genome.lengths))
    assert "chrM" in names
    assert contigs.resolve("chrM") == "Mito"
    assert contigs.missing == ()
    assert contigs.summary().startswith(f"matched {len(names)}/{len(names)} contigs, chrM read as Mito, chr")
