import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.variant import Variant, is_symbolic
from tests.builders import random_dna, write_fasta

Dna = st.text("AC", max_size=4).map(str.encode)


def fetcher(genome: bytes):
    def fetch(contig: str, start: int, end: int) -> bytes:
        assert contig == "chr1"
        assert 0 <= start <= end <= len(genome)
        return genome[start:end]

    return fetch


def haplotype(genome: bytes, variant: Variant) -> bytes:
    end = variant.position + len(variant.ref)
    assert genome[variant.position : end] == variant.ref
    return genome[: variant.position] + variant.alt + genome[end:]


@st.composite
def variants(draw: st.DrawFn) -> tuple[bytes, Variant]:
    genome = draw(st.text("AC", min_size=1, max_size=24)).encode()
    start = draw(st.integers(0, len(genome)))
    end = draw(st.integers(start, min(len(genome), start + 5)))
    return genome, Variant("chr1", start, genome[start:end], draw(Dna))


@pytest.mark.parametrize(
    ("ref", "alt", "kind", "trimmed"),
    [
        (b"A", b"C", "snv", (0, b"A", b"C")),
        (b"GAT", b"GCT", "snv", (1, b"A", b"C")),
        (b"ACG", b"TTT", "mnv", (0, b"ACG", b"TTT")),
        (b"AC", b"TC", "snv", (0, b"A", b"T")),
        (b"A", b"AT", "insertion", (1, b"", b"T")),
        (b"AA", b"A", "deletion", (0, b"A", b"")),
        (b"CAG", b"CG", "deletion", (1, b"A", b"")),
        (b"ACT", b"GG", "complex", (0, b"ACT", b"GG")),
        (b"AC", b"AC", "identical", (0, b"", b"")),
        (b"", b"AC", "insertion", (0, b"", b"AC")),
    ],
)
def test_trimming_and_kind(ref: bytes, alt: bytes, kind: str, trimmed: tuple[int, bytes, bytes]) -> None:
    variant = Variant("chr1", 10, ref, alt)
    assert variant.kind == kind
    assert variant.trimmed() == Variant("chr1", 10 + trimmed[0], *trimmed[1:])


@given(variants())
def test_right_alignment_keeps_the_haplotype_and_is_rightmost(case: tuple[bytes, Variant]) -> None:
    genome, variant = case
    aligned = variant.right_aligned(fetcher(genome), len(genome))
    target = haplotype(genome, variant)
    assert haplotype(genome, aligned) == target
    assert aligned.trimmed() == aligned
    if bool(aligned.ref) != bool(aligned.alt):
        size = len(aligned.ref) or len(aligned.alt)
        for position in range(aligned.position + 1, len(genome) + 1):
            if aligned.ref and position + size <= len(genome):
                assert genome[:position] + genome[position + size :] != target
            if aligned.alt:
                assert genome[:position] + target[position : position + size] + genome[position:] != target


@given(variants())
def test_equivalent_indels_have_one_spelling(case: tuple[bytes, Variant]) -> None:
    genome, variant = case
    aligned = variant.right_aligned(fetcher(genome), len(genome))
    if bool(aligned.ref) == bool(aligned.alt):
        return
    target = haplotype(genome, variant)
    size = len(aligned.ref) or len(aligned.alt)
    for position in range(len(genome) + 1):
        if aligned.ref:
            other = Variant("chr1", position, genome[position : position + size], b"")
        else:
            other = Variant("chr1", position, b"", target[position : position + size])
        if len(other.ref or other.alt) == size and haplotype(genome, other) == target:
            assert other.right_aligned(fetcher(genome), len(genome)) == aligned


@pytest.mark.parametrize("unit", [b"A", b"CA", random_dna(300, 5).encode()])
def test_long_repeats_are_walked_to_their_end(unit: bytes) -> None:
    repeats = unit * (2000 // len(unit))
    genome = b"GG" + repeats + b"T"
    deletion = Variant("chr1", 2, unit, b"").right_aligned(fetcher(genome), len(genome))
    insertion = Variant("chr1", 2, b"", unit).right_aligned(fetcher(genome), len(genome))
    assert haplotype(genome, deletion) == b"GG" + repeats[len(unit) :] + b"T"
    assert insertion.position - len(unit) == deletion.position >= 2 + len(repeats) - len(unit)


@pytest.mark.parametrize(
    ("alt", "symbolic"),
    [
        (b"A", False),
        (b"acgtn", False),
        (b"*", True),
        (b".", True),
        (b"<DEL>", True),
        (b"<*>", True),
        (b"G]17:198982]", True),
        (b"]13:123456]T", True),
        (b".A", True),
        (b"A.", True),
        (b"", True),
    ],
)
def test_symbolic_alleles(alt: bytes, symbolic: bool) -> None:
    assert is_symbolic(alt) is symbolic


def unpadded(position: int, ref: str, alt: str) -> tuple[int, bytes, bytes]:
    core = Variant("chr1", position, ref.encode(), alt.encode()).trimmed()
    return core.position, core.ref, core.alt


def bcftools_norm(
    fasta: Path, variants: list[tuple[int, str, str]], length: int
) -> list[tuple[int, bytes, bytes]]:
    """What bcftools makes of (0-based position, ref, alt), in the order given, without padding bases."""
    lines = [
        "##fileformat=VCFv4.2",
        f"##contig=<ID=chr1,length={length}>",
        "#CHROM POS ID REF ALT QUAL FILTER INFO",
    ]
    lines += [f"chr1 {p + 1} v{i} {ref} {alt} . . ." for i, (p, ref, alt) in enumerate(variants)]
    vcf = fasta.with_suffix(".vcf")
    vcf.write_text("\n".join(line if line[:2] == "##" else line.replace(" ", "\t") for line in lines) + "\n")
    command = ["bcftools", "norm", "-f", fasta, "-c", "e", "--no-version", vcf]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in shown.splitlines() if not line.startswith("#")]
    found = {row[2]: unpadded(int(row[1]) - 1, row[3], row[4]) for row in rows}
    return [found[f"v{i}"] for i in range(len(variants))]


@pytest.mark.skipif(shutil.which("bcftools") is None, reason="bcftools is not installed")
@pytest.mark.parametrize("alphabet", ["AC", "ACGT"])
def test_same_as_bcftools_norm(tmp_path: Path, alphabet: str) -> None:
    genome = random_dna(3000, 7, alphabet)
    write_fasta(tmp_path / "g.fa", [("chr1", genome)])
    draw = random.Random(11)
    cases = []
    while len(cases) < 2000:
        start, size = draw.randrange(1, 2900), draw.randrange(1, 12)
        ref = genome[start : start + size]
        alt = "".join(draw.choices(alphabet, k=draw.randrange(1, 12)))
        # bcftools drops nothing and moves nothing that is no variant, so it has nothing to say on these.
        if alt != ref:
            cases.append((start, ref, alt))
    # bcftools moves variants left, which is right on the other strand.
    fetch = fetcher(reverse_complement(genome.encode()))
    other_strand = (Variant("chr1", p, r.encode(), a.encode()).mirrored(len(genome)) for p, r, a in cases)
    ours = [v.right_aligned(fetch, len(genome)).mirrored(len(genome)) for v in other_strand]
    theirs = bcftools_norm(tmp_path / "g.fa", cases, len(genome))
    assert [(v.position, v.ref, v.alt) for v in ours] == theirs
