"""Species of contigs as rows of tables, and the contigs in a file for each species.

S species, W windows of a contig.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from hyenacli.writers.atomic import atomic_directory
from hyenacli.writers.columns import Batch, Column

if TYPE_CHECKING:
    from hyenacli.species.predict import Classified, Floats

UNKNOWN, UNCLASSIFIED = "unknown", "unclassified"
SUFFIX = ".fa"
_DIGITS = 7
# As UTF-8 a letter has up to four bytes, and a file's name at most 255.
_LONGEST_NAME = 60


@dataclass(frozen=True)
class SpeciesTable:
    """How probabilities are shown.

    Attributes:
        species: their names, in the order of the probabilities.
        threshold: below it the likeliest species is not named.
        top: how many species are listed with their probabilities; None for no such column.
    """

    species: tuple[str, ...]
    threshold: float = 0.0
    top: int | None = None

    def predictions(self, p_WS: "Floats") -> list[str]:
        """The likeliest species of each row, or `unknown`.

        >>> SpeciesTable(("human", "mouse"), 0.7).predictions(np.array([[0.6, 0.4], [0.3, 0.7]]))
        ['unknown', 'mouse']
        """
        best_W = p_WS.argmax(axis=1).tolist()
        return [
            self.species[best] if p_S[best] >= self.threshold else UNKNOWN
            for best, p_S in zip(best_W, p_WS, strict=True)
        ]

    def prediction(self, answer: "Classified") -> str:
        """What is predicted for a contig; '' where its status is not OK."""
        return "" if answer.p is None else self.predictions(answer.p[None])[0]

    def columns(self) -> list[Column]:
        """The columns of the table of contigs."""
        return [
            *(Column("id", str), Column("length", int), Column("n_windows", int), Column("n_bases", int)),
            *(Column("status", str), Column("prediction", str), Column("probability", float, digits=_DIGITS)),
            *([Column("top", str)] if self.top else []),
            *self._values(),
        ]

    def rows(self, answer: "Classified") -> Batch:
        """The row of a contig."""
        p_S = np.full(len(self.species), np.nan) if answer.p is None else answer.p
        row: dict[str, list[str] | list[int] | list[float]] = {
            "id": [answer.contig.name],
            "length": [len(answer.contig.bases)],
            "n_windows": [len(answer.windows)],
            "n_bases": [answer.n_bases],
            "status": [answer.status],
            "prediction": [self.prediction(answer)],
            "probability": [float(p_S.max())],
        }
        if self.top:
            row["top"] = ["" if answer.p is None else self._best(answer.p, self.top)]
        return row | {column.name: [p] for column, p in zip(self._values(), p_S.tolist(), strict=True)}

    def window_columns(self) -> list[Column]:
        """The columns of the table of windows."""
        place = (Column("id", str), Column("start", int), Column("end", int))
        return [*place, Column("prediction", str), *self._values()]

    def window_rows(self, answer: "Classified") -> Batch:
        """A row for each window of a contig that has some."""
        assert answer.window_p is not None  # noqa: S101  (a bug, not an input)
        starts_W, ends_W = np.array(answer.windows).T
        row = {
            "id": [answer.contig.name] * len(answer.windows),
            "start": starts_W,
            "end": ends_W,
            "prediction": self.predictions(answer.window_p),
        }
        return row | {column.name: answer.window_p[:, i] for i, column in enumerate(self._values())}

    def _values(self) -> list[Column]:
        return [Column(f"p_{name}", float, digits=_DIGITS) for name in self.species]

    def _best(self, p_S: "Floats", count: int) -> str:
        order = np.argsort(-p_S, kind="stable")[:count].tolist()
        return ",".join(f"{self.species[i]}:{p_S[i]:.4g}" for i in order)


@contextmanager
def open_split(
    target: Path, species: Sequence[str], *, force: bool
) -> Iterator[Callable[[str, bytes], None]]:
    """Takes predictions ('' for none) and the text of records, which go to a FASTA for each prediction.

    The directory appears, whole, when the context ends well; there is a file for what was predicted only.

    Args:
        target: the directory.
        species: all that may be predicted beside `unknown`.
        force: replace what the directory holds.

    Raises:
        UserError: as `atomic_directory`.
    """
    names = file_names(species)
    with atomic_directory(target, SUFFIX, force=force) as folder, ExitStack() as stack:
        files: dict[str, BinaryIO] = {}

        def write(prediction: str, text: bytes) -> None:
            if prediction not in files:
                files[prediction] = stack.enter_context((folder / names[prediction]).open("wb"))
            files[prediction].write(text)

        yield write


def file_names(species: Sequence[str]) -> dict[str, str]:
    """The file of each prediction, `unknown` and '' (none) among them, on any file system and all different.

    >>> file_names(["E. coli", "e_coli", "unclassified"])  # doctest: +NORMALIZE_WHITESPACE
    {'': 'unclassified.fa', 'unknown': 'unknown.fa', 'E. coli': 'E_coli.fa', 'e_coli': 'e_coli_2.fa',
     'unclassified': 'unclassified_2.fa'}
    """
    names = {"": UNCLASSIFIED, UNKNOWN: UNKNOWN}
    taken = set(names.values())
    for name in species:
        if name in names:
            continue
        stem = re.sub(r"[^\w+-]+", "_", name)[:_LONGEST_NAME].strip("_-") or "species"
        number, free = 1, stem
        while free.casefold() in taken:
            number += 1
            free = f"{stem}_{number}"
        names[name] = free
        taken.add(free.casefold())
    return {name: f"{stem}{SUFFIX}" for name, stem in names.items()}
