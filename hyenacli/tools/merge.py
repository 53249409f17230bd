"""`hyena merge`: join the shards of a run into one file."""

from hyenacli import console
from hyenacli.errors import UsageError
from hyenacli.tools.settings import MergeSettings
from hyenacli.writers.atomic import ensure_writable
from hyenacli.writers.columns import suffix_kind
from hyenacli.writers.output_shards import FORMATS, merge_shards, sniff


def run(settings: MergeSettings) -> None:
    """Merge the shards.

    Raises:
        UsageError: the suffix of the output is of another file type.
        UserError: the shards do not belong together, or the output cannot be written.
    """
    kind = sniff(settings.shards[0])
    suffix = FORMATS[kind].suffix
    suffixes = [file_type.suffix for file_type in FORMATS.values()]
    if suffix_kind(settings.output, suffixes) not in (suffix, None):
        raise UsageError(
            f"the shards are {suffix}", at=settings.output, remedy=f"give it the suffix .{suffix}"
        )
    ensure_writable(settings.output)
    merged = merge_shards(settings.shards, settings.output)
    destination = "stdout" if str(settings.output) == "-" else settings.output
    console.log.info(
        "joined %d shards of %s records, to %s", merged.shards, f"{merged.records:,}", destination
    )
    console.event("merge", shards=merged.shards, records=merged.records)
