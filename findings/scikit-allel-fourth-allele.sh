#!/usr/bin/env bash
# scikit-allel 1.3.13 reads three alternate alleles of a record, drops the others, and keeps genotypes that name them.
#
# read_vcf() makes arrays of a fixed width; alt_number sets it.
# Expected: as wide as the record with the most alleles, or an error or a warning where one does not fit.
# What happens: the default width is three. A fourth allele is gone without a word, and a genotype 0/4 points to an
# allele that the table does not have. Give alt_number, from the most alternate alleles of the file.
#
# Output seen:
#   alternate alleles in the file: C G T AC
#   alternate alleles read: C G T
#   genotype: [0, 4]
#   alternate alleles read with alt_number=4: C G T AC
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet scikit-allel==1.3.13 numpy==2.4.6
{
    printf '##fileformat=VCFv4.2\n##contig=<ID=chr1,length=1000>\n'
    printf '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    printf '#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tone\n'
    printf 'chr1\t10\t.\tA\tC,G,T,AC\t.\tPASS\t.\tGT\t0/4\n'
} > four.vcf
env/bin/python - <<'PYTHON'
import warnings

import allel

warnings.simplefilter("error")  # none is given
print("alternate alleles in the file: C G T AC")
narrow = allel.read_vcf("four.vcf")
kept = narrow["variants/ALT"][0].tolist()
print("alternate alleles read:", *kept)
genotype = narrow["calldata/GT"][0, 0].tolist()
print("genotype:", genotype)
wide = allel.read_vcf("four.vcf", alt_number=4)["variants/ALT"][0].tolist()
print("alternate alleles read with alt_number=4:", *wide)
assert kept == ["C", "G", "T"], "the fourth allele is read now"
assert genotype == [0, 4]
assert wide == ["C", "G", "T", "AC"]
PYTHON
