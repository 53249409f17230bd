"""What one process of a run writes, and which of the processes merges what all of them wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError
from hyenacli.readers.shards import Shard, parse_shard
from hyenacli.writers.atomic import ensure_writable
from hyenacli.writers.bgzip import remove_indexes


@dataclass(frozen=True)
class OutputShard:
    """What this process does of a run.

    Attributes:
        shard: its part of the input; None for all of it.
        target: what it writes.
        whole: the file that the shards of all processes become; None where they are nobody's business here.
    """

    shard: Shard | None
    target: Path
    whole: Path | None = None

    def check(self, *inputs: Path | None) -> None:
        """Fail before the work is done rather than after it.

        Args:
            inputs: files that are read, which the output must not replace.

        Raises:
            UsageError, UserError: as `ensure_writable`, of both files.
        """
        for path in (self.target, self.whole):
            if path is not None:
                ensure_writable(path, *inputs)

    def clear(self) -> None:
        """Remove what a run of several processes that was cut short has left: it is not this run's."""
        if self.whole is not None:
            self.target.unlink(missing_ok=True)
            if current_ranks().first:
                _claim(self.whole).unlink(missing_ok=True)

    def describe(self) -> str:
        """Where what this process does will be, for a message."""
        if self.whole is not None:
            return f"to {self.target}; the process that ends last joins all shards into {self.whole}"
        return "to stdout" if str(self.target) == "-" else f"to {self.target}"


def resolve_shard(shard: str | None, target: Path) -> OutputShard:
    """What to do: the part that --shard names; under torchrun each process its own; else everything.

    Raises:
        UsageError: both, no such shard, or several processes are to share stdout.
    """
    ranks = current_ranks()
    if shard is not None:
        if ranks.world_size > 1:
            raise UsageError(
                "each process of torchrun takes its own shard", at="--shard", remedy="leave it out"
            )
        return OutputShard(parse_shard(shard), target)
    if ranks.world_size == 1:
        return OutputShard(None, target)
    if str(target) == "-":
        raise UsageError("several processes cannot share stdout", at="-o", remedy="name a file")
    own = Shard(ranks.rank + 1, ranks.world_size)
    return OutputShard(own, own.path(target), target)


def merge_if_last(share: OutputShard, join: Callable[[Sequence[Path], Path], object]) -> bool:
    """Join the shards of all processes where this one is the last to have written its own.

    Nobody waits for anybody. Who sees all the shards claims the work with a file beside them, and looks
    again: another process may have joined and removed them in between.

    Args:
        share: of a process that has written its shard.
        join: (shards in order, target).

    Returns:
        Whether this process did it.
    """
    if share.whole is None or share.shard is None:
        return False
    paths = [Shard(number, share.shard.of).path(share.whole) for number in range(1, share.shard.of + 1)]
    claim = _claim(share.whole)
    if not all(path.exists() for path in paths):
        return False
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        if not all(path.exists() for path in paths):
            return False
        join(paths, share.whole)
        for path in paths:
            remove_indexes(path)
            path.unlink()
    finally:
        claim.unlink()
    return True


def _claim(target: Path) -> Path:
    return target.with_name(f".{target.name}.joining")
