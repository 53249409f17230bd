"""Wrapper of hyena classify-species."""

__license__ = "Apache-2.0"

import shlex

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)
genome = snakemake.input.get("fasta")
genome = f"-f {shlex.quote(genome)}" if genome else ""

shell(
    "hyena classify-species predict {snakemake.input.records:q} {genome} -m {snakemake.input.model:q}"
    " -o {snakemake.output[0]:q} -@ {snakemake.threads} {extra} {log}"
)
