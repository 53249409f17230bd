"""`hyena merge`: the shards of a run as one file."""

from hyenacli import console
from hyenacli.errors import UsageError
from hyenacli.tools.settings import MergeSettings
from hyenacli.writers.atomic import ensure_writable
from hyenacli.writers.output_shards import FORMATS, merge_shards, sniff


def run(config: MergeSettings) -> None:
    """Merge the shards.

    Raises:
        UserError: they do not fit together, or the output cannot be written.
    """
    kind = sniff(config.shards[0])
    suffixes = [suffix for suffix in FORMATS if config.output.name.endswith(f".{suffix}")]
    if suffixes and suffixes[0] != kind:
        raise UsageError(f"the shards are {kind}", at=config.output, remedy=f"give it the suffix .{kind}")
    ensure_writable(config.output)
    merged = merge_shards(config.shards, config.output)
    destination = "stdout" if str(config.output) == "-" else config.output
    console.log.info(
        "joined %d shards of %s records, to %s", merged.shards, f"{merged.records:,}", destination
    )
    console.event("merge", shards=merged.shards, records=merged.records)
