"""Time and memory of fitting Markov models to a genome: `python -m benchmarks.markov_cost`."""

import resource
import textwrap
import time
from collections.abc import Iterator, Sequence

from benchmarks.data import GENOMES
from benchmarks.results import table, write_section
from benchmarks.species import VERTEBRATES
from hyenacli.evaluation.markov import fit_markov
from hyenacli.readers.genome import Contig, Tokens, open_genomes

GENOME = 3_000_000_000
ABOUT = textwrap.dedent("""\
    ## Markov models of a genome (`python -m benchmarks.markov_cost`)

    CPU seconds of one thread to fit the models of order 6, 8 and 10 to both strands of one genome, of the
    first and of all four vertebrate files taken as one, and what 3 Gb would take by the slope between them.
    Memory is the peak of the process, interpreter and torch included.""")


def main() -> None:
    """Fit to one file and to four, and write the table."""
    genomes = open_genomes([GENOMES / file for file in VERTEBRATES.values()])
    contigs = [contig for genome in genomes for contig in genome.contigs]
    first, seconds_first = fitted(genomes[0].contigs)
    total, seconds = fitted(contigs)
    slope = (seconds - seconds_first) / (total - first)
    rows = [[f"{bases:,}", f"{cpu:.1f}"] for bases, cpu in ((first, seconds_first), (total, seconds))]
    rows.append([f"{GENOME:,} (extrapolated)", f"{seconds + slope * (GENOME - total):.0f}"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    text = f"{ABOUT}\n\n{table(['bases', 'CPU seconds'], rows)}\n\nPeak memory: {peak:.2f} GiB."
    write_section("markov-cost", text)


def fitted(contigs: Sequence[Contig]) -> tuple[int, float]:
    """Bases of contigs, and CPU seconds of the fit."""

    def stretches() -> Iterator[Tokens]:
        for contig in contigs:
            yield contig.tokens(0, len(contig))

    start = time.process_time()
    fit_markov([stretches()])
    return sum(map(len, contigs)), time.process_time() - start


if __name__ == "__main__":
    main()
