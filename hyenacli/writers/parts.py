"""An output written in parts, which an interrupted run leaves for the one that goes on with it.

The parts are shards, in a folder beside the output. Each appears when it is complete, and the folder has the
sealed description of the run that they are of.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyenacli.console import log
from hyenacli.errors import UserError
from hyenacli.readers.shards import Shard
from hyenacli.state_files import read_sealed, seal, sole_writer
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.output_shards import merge_shards, run_identity

_RUN = "run.json"


@dataclass(frozen=True)
class Parts:
    """The parts of one or several files that are written together.

    Attributes:
        folder: where they are.
        paths: the files.
        of: number of parts.
    """

    folder: Path
    paths: Sequence[Path]
    of: int

    def files(self, shard: Shard) -> list[Path]:
        """Return the files of a part, one for each of the outputs."""
        return [shard.path(self.folder / path.name) for path in self.paths]

    def complete(self, shard: Shard) -> bool:
        """Return whether a part has been written."""
        return all(path.exists() for path in self.files(shard))

    def shards(self) -> list[Shard]:
        """Return all parts."""
        return [Shard(number, self.of) for number in range(1, self.of + 1)]


@contextmanager
def open_parts(
    paths: Sequence[Path], of: int, provenance: Mapping[str, Any], *, resume: bool
) -> Iterator[Parts]:
    """Open the parts of outputs, which are joined when the context ends well, and kept if not.

    Args:
        paths: of the outputs, in one folder.
        of: number of parts.
        provenance: of the outputs; with what it says of the input, all but free settings are the same for a
            run that goes on.
        resume: take over what an interrupted run has left.

    Raises:
        UserError: an interrupted run has left something and `resume` is not set, or it was another run; or
            another process writes the output.
    """
    folder = paths[0].with_name(f"{paths[0].name}.unfinished")
    parts = Parts(folder, paths, of)
    with sole_writer(folder.with_name(f".{folder.name}.lock"), paths[0]):
        _prepare(parts, run_identity(provenance) | {"parts": of}, resume=resume)
        try:
            yield parts
        except BaseException:
            done = sum(map(parts.complete, parts.shards()))
            if done:
                log.info("%s keeps %d of %d parts, for the same command with --resume", folder, done, of)
            else:
                shutil.rmtree(folder)
            raise
        for number, path in enumerate(paths):
            merge_shards([parts.files(shard)[number] for shard in parts.shards()], path)
        shutil.rmtree(folder)


def _prepare(parts: Parts, identity: dict[str, Any], *, resume: bool) -> None:
    """Make the folder, or check that what is in it is of the same run."""
    folder, again = parts.folder, "remove it to begin again"
    if any(map(parts.complete, parts.shards())) or (folder / _RUN).exists():
        if not resume:
            remedy = f"add --resume to go on with it, or {again}"
            raise UserError("holds parts of an interrupted run", at=folder, remedy=remedy)
        before = read_sealed(folder / _RUN, again)
        names = [name for name in identity | before if before.get(name) != identity.get(name)]
        if names:
            what = f"was left by a run with another {names[0]}"
            raise UserError(what, at=folder, remedy=again)
        return
    folder.mkdir(exist_ok=True)
    with atomic_path(folder / _RUN) as draft:
        draft.write_text(seal(identity, readable=True))
