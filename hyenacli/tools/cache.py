"""`hyena cache`: what is kept of genomes, and its removal."""

import datetime as dt

from hyenacli.console import counted, log
from hyenacli.readers.genome_cache import clean_cache, list_cache
from hyenacli.terminal_tables import print_table
from hyenacli.tools.settings import CacheCleanSettings, CacheListSettings


def show(_settings: CacheListSettings) -> None:
    """Print a row per entry, and log the folder and its size."""
    root, entries = list_cache()
    rows = [
        (name, f"{megabytes:.1f}", f"{dt.datetime.fromtimestamp(changed, dt.UTC):%Y-%m-%d %H:%M}")
        for name, megabytes, changed in entries
    ]
    print_table(("entry", "megabytes", "made_utc"), rows)
    total = sum(entry.megabytes for entry in entries)
    log.info("%s: %d %s, %.1f MB", root, len(entries), "entry" if len(entries) == 1 else "entries", total)


def clean(_settings: CacheCleanSettings) -> None:
    """Remove all entries, and log how much they were."""
    entries = clean_cache()
    log.info("removed %s, %.1f MB", counted(len(entries), "genome"), sum(e.megabytes for e in entries))
