"""Wrapper of hyena merge."""

__license__ = "Apache-2.0"

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

shell("hyena merge {snakemake.input:q} -o {snakemake.output[0]:q} {extra} {log}")
