"""Settings of `hyena generate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class DrawingOptions:
    """How many bases are drawn, by which rule and within which constraints."""

    samples: Annotated[
        int, typer.Option("-n", "--samples", help="Sequences for each prompt.", min=1, metavar="N")
    ] = 1
    length: Annotated[
        int | None,
        typer.Option(
            help="New bases of a sequence; default those of --template, or else 500.", min=1, metavar="BASES"
        ),
    ] = None
    temperature: Annotated[
        float,
        typer.Option(help="Below 1, likely bases become likelier; 0: always the likeliest.", min=0.0),
    ] = 1.0
    top_k: Annotated[int, typer.Option(help="Choose among the K likeliest bases.", min=1, max=4)] = 4
    top_p: Annotated[
        float,
        typer.Option(help="Choose among the likeliest bases that together have this probability."),
    ] = 1.0
    min_p: Annotated[
        float,
        typer.Option(help="Leave out bases less likely than this share of the likeliest.", min=0.0, max=1.0),
    ] = 0.0
    seed: Annotated[int, typer.Option(help="Seed of the samples.", min=0)] = 0
    no_repeat: Annotated[
        int | None,
        typer.Option(
            help="No word of K bases occurs twice in prompt and new bases.", min=8, max=64, metavar="K"
        ),
    ] = None
    max_homopolymer: Annotated[
        int | None, typer.Option(help="No base occurs more than N times in a row.", min=1, metavar="N")
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            help="IUPAC letters of the new bases, from the first: N is free, other letters restrict.",
            metavar="IUPAC",
        ),
    ] = None
    forbid: Annotated[
        str | None,
        typer.Option(
            help="Words (IUPAC) that must not end in the new bases, on either strand, such as restriction "
            "sites.",
            metavar="SEQ[,...]",
        ),
    ] = None
    gc: Annotated[
        str | None,
        typer.Option(help="Percent of G and C of the new bases; others are drawn again.", metavar="LO-HI"),
    ] = None
    tries: Annotated[
        int,
        typer.Option(
            help="Times a sequence is drawn to fit --gc and --no-repeat before it is REJECTED.", min=1
        ),
    ] = 100
    stop: Annotated[
        str | None,
        typer.Option(help="End after one of these words (IUPAC) of new bases.", metavar="SEQ[,...]"),
    ] = None
    stop_codon: Annotated[
        bool,
        typer.Option("--stop-codon", help="End after TAA, TAG or TGA; codons count from the first new base."),
    ] = False
    slide: Annotated[
        bool,
        typer.Option(
            "--slide",
            help="Where a prompt and its new bases exceed the model's context, drop the oldest half of the "
            "context and go on; without it, they are TOO_LONG.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(
    DrawingOptions,
    options.ModelOptions,
    options.RecordTableOptions,
    options.RegionOptions,
    options.CircularOptions,
    options.ColumnOptions,
    options.ShardOptions,
):
    """Generate sequences: continue prompts base by base, by what the model has learnt.

    PROMPTS is a FASTA, a table with sequences, a BED (with -f) or - for stdin; -r gives regions of -f
    instead, and --prompt one prompt. Only A, C, G and T are drawn. At each base, what the constraints forbid
    is left out first; then --top-k, --temperature, --top-p and --min-p act, in this order.

    OUT is .fa, .fasta (with .gz: bgzip), .tsv(.gz), .csv, .jsonl, .parquet or .npz. A sample depends on
    --seed, the prompt, its name and the sample's number only: not on batches, shards or the order of the
    input.

    Examples:
        hyena generate --prompt ACGTTGCA -n 10 --length 200 -m run -o new.fa
        hyena generate -r chr1:1001-1200 -f genome.fa.gz --length 500 --temperature 0.8 -m run -o new.tsv
        hyena generate prompts.fa -m run -o new.fa --report new.html --reference genome.fa.gz
    """

    input: Annotated[
        Path | None,
        typer.Argument(help="FASTA, table or BED (plain or gzip), - for stdin.", metavar="PROMPTS"),
    ] = None
    prompt: Annotated[str | None, typer.Option(help="One prompt.", metavar="BASES")] = None
    prompt_length: Annotated[
        int | None,
        typer.Option(
            help="Use the last N bases of each prompt; of a region, the N bases of the genome up to its end.",
            min=1,
            metavar="N",
        ),
    ] = None
    with_prompt: Annotated[
        bool, typer.Option("--with-prompt", help="Write the prompt before the new bases.")
    ] = False
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML page: composition, words beside those of --reference and of Markov samples, "
            "repeats of the prompt, scores and statuses.",
            metavar="FILE",
        ),
    ] = None
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Genome that --report compares with, such as the one the model was trained on; default that "
            "of -f.",
            metavar="FASTA",
        ),
    ] = None
