import shutil
import subprocess
from pathlib import Path

import pytest

from hyenacli.readers.variants import open_variants
from hyenacli.writers.variants import open_annotated
from hyenacli.writers.vcf import InfoField

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bcftools") is None, reason="bcftools is not installed"),
]
FIELDS = (InfoField("HYENA_LLR", "A", "Float", "x"), InfoField("HYENA_STATUS", "A", "String", "y"))
NAMES = [
    *("chr22_20-21M.dbsnp.vcf.gz", "chrm_mgrb_variants.vcf.gz", "chrm_mitomap_variants_coding.vcf.gz"),
    *("kircher_LDLR_F9.vcf", "problematic_sites_sarsCov2.vcf.gz", "sars_cov_2_usher_samples.vcf.gz"),
    *("edge/consensus.vcf", "edge/merge.gvcf.2.a.vcf", "edge/norm.breakend.1.vcf", "edge/norm.check-ref.vcf"),
    *("edge/norm.iupac.vcf", "edge/norm.right-align.vcf", "edge/norm.symbolic.2.vcf", "edge/norm.vcf"),
    *("edge/norm.symbolic.vcf", "edge/norm.telomere.vcf", "edge/view.vcf", "edge/view64bit.1.vcf"),
]


def bcftools(*arguments: str | Path) -> list[str]:
    """The lines that bcftools prints."""
    done = subprocess.run(["bcftools", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def annotate(source: Path, target: Path) -> list[tuple[str, int, str, int]]:
    """Annotate every allele with its number; contig, POS, ALT and number of ALT of each record."""
    seen = []
    with (
        open_variants(source) as variants,
        open_annotated(target, None, variants.header, FIELDS, ["##hyena_version=1"]) as out,
    ):
        for record in variants:
            count = len(record.alts)
            out.write(record, {"HYENA_LLR": [i / 8 for i in range(count)], "HYENA_STATUS": ["OK"] * count})
            seen.append((record.contig, record.position + 1, b",".join(record.alts).decode() or ".", count))
    return seen


def test_the_list_of_files_is_complete(shared: Path) -> None:
    folder = shared / "data" / "variants"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.vcf*")}
    assert {name for name in found if not name.endswith(".tbi")} == set(NAMES)


@pytest.mark.parametrize("suffix", ["vcf", "vcf.gz", "bcf"])
@pytest.mark.parametrize("name", NAMES)
def test_bcftools_reads_what_is_written(shared: Path, tmp_path: Path, name: str, suffix: str) -> None:
    target = tmp_path / f"out.{suffix}"
    seen = annotate(shared / "data" / "variants" / name, target)
    columns = r"%CHROM\t%POS\t%ALT\t%INFO/HYENA_LLR\t%INFO/HYENA_STATUS\n"
    assert bcftools("query", "-f", columns, target) == [
        f"{contig}\t{pos}\t{alt}\t"
        + (",".join(f"{i / 8:g}" for i in range(n)) + "\t" + ",".join(["OK"] * n) if n else ".\t.")
        for contig, pos, alt, n in seen
    ]


@pytest.mark.parametrize("name", NAMES)
def test_bcf_holds_what_bcftools_reads_in_the_text(shared: Path, tmp_path: Path, name: str) -> None:
    text, binary = tmp_path / "out.vcf", tmp_path / "out.bcf"
    for target in (text, binary):
        annotate(shared / "data" / "variants" / name, target)
    assert bcftools("view", "-H", binary) == bcftools("view", "-H", text)
    with open_variants(binary) as variants:
        assert [record.text.decode() for record in variants] == bcftools("view", "-H", binary)


@pytest.mark.parametrize("name", NAMES)
def test_bcftools_finds_records_by_the_index(shared: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "out.vcf.gz"
    seen = annotate(shared / "data" / "variants" / name, target)
    contig = seen[-1][0]
    region = tmp_path / "regions.tsv"  # a name that holds ':' cannot be a region on the command line
    region.write_text(f"{contig}\t1\t{2**29}\n")
    found = bcftools("query", "-f", r"%POS\n", "-R", region, target)
    assert [int(pos) for pos in found] == [pos for name, pos, *_ in seen if name == contig]
