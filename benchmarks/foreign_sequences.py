"""Foreign sequences by their likelihood: AUROC of a model of E. coli, beside Markov models of the same bases.

Pieces of held-out E. coli are told from pieces of phages and viruses, of the human mitochondrion and of human
chromosomes, by mean -log p of both strands. The model is the one that `hyena pretrain` makes of the rest:

    hyena pretrain ecoli_MG1655.fna.gz -o RUN --preset tiny-1k --intervals splits.bed --max-steps 600 \
        --global-batch-size 16 --micro-batch-size 8 --lr 3e-3 --rc-augment

Usage: python -m benchmarks.foreign_sequences RUN SPLITS_BED GENOMES_FOLDER
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from hyenacli.evaluation.markov import MarkovModels
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.likelihood import score_sequences
from hyenacli.inference.sampling import complement
from hyenacli.readers.genome import Genome
from hyenacli.readers.records import SequenceRecord
from hyenadna import Tokenizer, load_model

FOREIGN = {
    "lambda": ["lambda.fa"],
    "phiX174": ["phiX174.fa"],
    "SARS-CoV-2": ["sars_cov_2.NC_045512v2.fa"],
    "human mtDNA": ["hg38.chrM.fa"],
    "human": ["hg38.pieces.fa.gz"],
    "Salmonella": ["salmonella_LT2.fna.gz"],
}
MAX_PIECES = 150


def pieces(genome: Genome, length: int, first: int = 0, end: int | None = None) -> list[bytes]:
    """Pieces spread evenly over the contigs, without N; of `first` to `end` of each."""
    starts = [
        (contig, start)
        for contig, size in genome.lengths.items()
        for start in range(first, (end or size) - length + 1, length)
    ]
    step = max(1, len(starts) // MAX_PIECES)
    texts = (genome.fetch(contig, start, start + length) for contig, start in starts[::step][:MAX_PIECES])
    return [text for text in texts if b"N" not in text]


def scores(run: Path, markov: MarkovModels, texts: list[bytes]) -> Iterator[list[float]]:
    """Mean -log p of every text: of the model, then of the Markov models by order."""
    records = (SequenceRecord.of_sequence(str(i), text) for i, text in enumerate(texts))
    scored = score_sequences(load_model(run), records, EmbeddingOptions(rc="mean"))
    for text, answer in zip(texts, scored, strict=True):
        tokens_W = Tokenizer().encode_array(text)
        strands = [markov.cross_entropy(strand[None]) for strand in (tokens_W, complement(tokens_W))]
        yield [answer.bits_per_base, *np.mean(strands, axis=0).tolist()]


def main(run: Path, splits: Path, folder: Path) -> None:
    """Print a row for every group and length."""
    rows = [line.split() for line in splits.read_text().splitlines()]
    train, test = ([(int(a), int(b)) for _, a, b, kind in rows if kind == s] for s in ("train", "test"))
    with Genome(folder / "ecoli_MG1655.fna.gz", codes_required=True) as ecoli:
        (contig,) = ecoli.contigs
        stretches = [contig.tokens(*span) for span in train]
        markov = MarkovModels(stretches, both_strands=True)
        print("| pieces | foreign | n | hyena | order 0 | best Markov (order) |\n|---|---|---|---|---|---|")
        for length in (500, 2_000):
            ours = list(scores(run, markov, pieces(ecoli, length, *test[0])))
            for name, files in FOREIGN.items():
                with Genome(folder / files[0]) as genome:
                    theirs = list(scores(run, markov, pieces(genome, length)))
                truth = [0] * len(ours) + [1] * len(theirs)
                values = np.array(ours + theirs)
                area = [roc_auc_score(truth, column) for column in values.T]
                best = int(np.argmax(area[1:]))
                row = [f"{length:,}", name, len(theirs), f"{area[0]:.3f}", f"{area[1]:.3f}"]
                print("|", " | ".join(map(str, [*row, f"{area[1 + best]:.3f} ({best})"])), "|", flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
