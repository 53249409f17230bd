"""`hyena merge`: the shards of a run as one file."""

from hyenacli import console
from hyenacli.errors import UsageError
from hyenacli.tools.settings import MergeSettings


def run(config: MergeSettings) -> None:
    """Join the shards.

    Raises:
        UserError: they do not fit together, or the output cannot be written.
    """
    from hyenacli.writers.atomic import ensure_writable
    from hyenacli.writers.merge import merge_shards
    from hyenacli.writers.shard_files import FORMATS, sniff

    kind = sniff(config.shards[0])
    named = [known for known in FORMATS if config.output.name.endswith(f".{known}")]
    if named and named[0] != kind:
        raise UsageError(f"the shards are {kind}", at=config.output, remedy=f"give it the suffix .{kind}")
    ensure_writable(config.output)
    joined = merge_shards(config.shards, config.output)
    where = "stdout" if str(config.output) == "-" else config.output
    console.log.info("joined %d shards of %s records, to %s", joined.shards, f"{joined.records:,}", where)
    console.event("merge", shards=joined.shards, records=joined.records)
