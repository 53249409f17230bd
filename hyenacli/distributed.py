"""The one place that reads what torchrun sets: which process am I, among how many."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Ranks:
    """This process's place in a torchrun job; a plain process is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and talks."""
        return self.rank == 0


def current_ranks() -> Ranks:
    """Ranks from torchrun's RANK, WORLD_SIZE and LOCAL_RANK."""
    rank, world_size, local_rank = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    return Ranks(rank, world_size, local_rank)


def launched() -> bool:
    """Whether torchrun, or something that does the same, has started this process."""
    return "RANK" in os.environ
