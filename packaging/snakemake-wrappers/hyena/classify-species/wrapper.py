"""Wrapper of hyena classify-species."""

__license__ = "Apache-2.0"

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

shell(
    "hyena classify-species predict {snakemake.input.records:q} -m {snakemake.input.model:q}"
    " -o {snakemake.output[0]:q} -@ {snakemake.threads} {extra} {log}"
)
