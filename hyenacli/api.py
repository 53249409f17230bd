"""The verbs as functions: over strings, records, files and data frames, with the numbers of the commands.

A `str` is a sequence, and a file is a `pathlib.Path`. What could not be done is a row with a status and no
numbers, as in the commands' tables, so that rows stay aligned with the input.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError, check_range, check_word
from hyenacli.generate.generation import generate as generate_records
from hyenacli.generate.options import generated_row, parse_options, prompt_of
from hyenacli.generate.settings import DrawingOptions
from hyenacli.genome.dna import normalise
from hyenacli.inference.batching import make_budget
from hyenacli.inference.embedding import embed as embed_records
from hyenacli.inference.embedding import record_rows
from hyenacli.inference.embedding_options import parse_embedding_options
from hyenacli.inference.experts import Experts, join_predictions, load_experts
from hyenacli.inference.prediction import predict as predict_records
from hyenacli.inference.prediction import (
    prediction_head,
    prediction_options,
    prediction_rows,
    readable_records,
)
from hyenacli.readers.inputs import SequenceInput, check_flank
from hyenacli.readers.records import SequenceRecord
from hyenacli.readers.regions import Reference, open_reference
from hyenacli.readers.tables import read_bases
from hyenacli.readers.variants import open_variants
from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.haplotypes import AlleleReader
from hyenacli.variants.scorer import ScoringOptions, VariantScorer, info_values
from hyenacli.variants.scores import parse_scores
from hyenadna import HyenaDNA, load_model
from hyenadna.formats.load import locate

if TYPE_CHECKING:
    from hyenacli.readers.genome import Genome

__all__ = ["Embeddings", "embed", "generate", "load", "predict", "score_variants"]

Model = str | Path | HyenaDNA
Sequences = str | Path | Iterable[str | bytes | SequenceRecord] | Mapping[str, Any]
"""One sequence, a file (FASTA, table, BED with `fasta`), sequences or records, or a data frame."""
Rows = dict[str, list[Any]]
"""Columns by name, all of one length: `pandas.DataFrame(rows)` makes a table of it."""
# The k-mer models beside networks that `load` returned.
_experts: WeakKeyDictionary[HyenaDNA, Experts] = WeakKeyDictionary()


@dataclass(frozen=True)
class Embeddings:
    """Vectors of N records.

    Attributes:
        rows: id, chrom, start, end (0-based, half-open), strand, n_bases and status of each record.
        vectors: (N, E) float32, or (N, K, E) of all K layers; NaN where the status is not OK.
    """

    rows: Rows
    vectors: NDArray[np.float32]


def load(model: Model, *, device: str = "auto", threads: int | None = None) -> HyenaDNA:
    """Load a model once, to give it to the functions of this module.

    Args:
        model: what `-m` takes: a directory, a checkpoint, a run, or the name of a published model.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads; None for all.

    Returns:
        The model in eval mode on the device. `predict` joins it with the experts that are saved beside it.

    Raises:
        ModelError: there is no such model, or it cannot be loaded exactly.
        UsageError: there is no such device, or there are to be no threads.
    """
    set_threads(threads)
    if isinstance(model, HyenaDNA):
        return model.to(resolve_device(device))
    loaded = load_model(model).to(resolve_device(device))
    if (experts := load_experts(locate(model).config.parent)) is not None:
        _experts[loaded] = experts
    return loaded


def embed(
    source: Sequences,
    model: Model,
    *,
    fasta: Path | None = None,
    column: str = "sequence",
    pool: str = "mean",
    layer: int | Literal["all"] = -1,
    rc: Literal["none", "mean", "concat"] = "none",
    stranded: bool = False,
    flank: int = 0,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Embeddings:
    """Embed sequences or regions; the options are those of `hyena embed`.

    Args:
        source: see `Sequences`.
        model: a name or path, or what `load` returned.
        fasta: genome of the regions, if the source is a BED.
        column: of a table or data frame, with the sequences.
        pool: mean, last, max or center:N.
        layer: of the model, -1 for the last after the final norm, or "all".
        rc: none, the mean of both strands, or both one after the other.
        stranded: read regions on the - strand as reverse complement.
        flank: bases of the genome read on both sides of a region.
        window: longest sequence read at once, in bases.
        stride: bases from one window's start to the next.
        batch_size: sequences per forward pass; None for as many as fit in memory.
        device: where to run.
        dtype: of matrix products.

    Raises:
        UsageError: options that do not fit each other or the input.
        UserError: the input cannot be read.
    """
    if pool == "none":
        raise UsageError(
            "one array has no room for a vector per base", at="pool", remedy="use `hyena embed -o x.h5`"
        )
    options = parse_embedding_options(
        pool=pool, layer=str(layer), rc=rc, stranded=stranded, window=window, stride=stride
    )
    check_range("--flank", flank, 0)
    check_flank(fasta, given=flank != 0)
    precision, loaded = autocast(resolve_device(device), dtype), load(model, device=device)
    shape = len(options.layers(loaded.config)), options.width(loaded.config)
    rows: Rows = {}
    vectors: list[NDArray[np.float32]] = []
    with _open(source, fasta, column, flank) as records:
        for answer in embed_records(loaded, records, options, batch_size=batch_size, precision=precision):
            _extend(rows, record_rows(answer.record, answer.n_bases, 1))
            empty = np.full(shape, np.nan, dtype=np.float32)
            vectors.append(empty if answer.vectors is None else answer.vectors[0])
    stacked_NKE = np.stack(vectors) if vectors else np.zeros((0, *shape), dtype=np.float32)
    return Embeddings(rows, stacked_NKE if layer == "all" else stacked_NKE[:, 0])


def predict(
    source: Sequences,
    model: Model,
    *,
    fasta: Path | None = None,
    column: str = "sequence",
    rc: Literal["auto", "none", "mean"] = "auto",
    stranded: bool = False,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Rows:
    """Predict with a fine-tuned model; columns and options are those of `hyena predict`.

    Args:
        source: see `Sequences`.
        model: a fine-tuned model or run, or what `load` returned for it.
        fasta: genome of the regions, if the source is a BED.
        column: of a table or data frame, with the sequences.
        rc: predict from one strand or from the mean of both; auto: as the model was trained for.
        stranded: read regions on the - strand as reverse complement.
        window: longest sequence read at once, in bases.
        stride: bases from one window's start to the next.
        batch_size: sequences per forward pass; None for as many as fit in memory.
        device: where to run.
        dtype: of matrix products.

    Returns:
        A row per record (per base for models of single bases): its id and status, `prediction` (a class), and
        p_CLASS (probabilities), or the numbers of a regression.

    Raises:
        UsageError: an option has no such value.
        UserError: the model has no head, or the input cannot be read.
    """
    check_word("--rc", rc, ("auto", "none", "mean"))
    precision, loaded = autocast(resolve_device(device), dtype), load(model, device=device)
    head = prediction_head(loaded, model if isinstance(model, str | Path) else "the model")
    both = head.rc if rc == "auto" else rc == "mean"
    options = prediction_options(head, rc=both, stranded=stranded, window=window, stride=stride)
    rows: Rows = {}
    with _open(source, fasta, column, 0) as records:
        readable = readable_records(records, options)
        answers = predict_records(loaded, readable, options, batch_size=batch_size, precision=precision)
        for answer in join_predictions(answers, _experts.get(loaded), stranded=stranded):
            _extend(rows, prediction_rows(answer, head))
    return rows


def score_variants(
    variants: Path | Iterable[tuple[str, int, str, str]] | Mapping[str, Any],
    model: Model,
    genome: Path | Mapping[str, str],
    *,
    score: str = "llr",
    rc: Literal["mean", "none"] = "mean",
    window: int | None = None,
    grid: int | None = None,
    downstream: int | None = None,
    max_allele: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Rows:
    """Score variants; scores and options are those of `hyena score-variants`.

    Args:
        variants: a file (VCF, BCF or table), tuples (chrom, pos, ref, alt) with pos 1-based as in VCF and
            several ALT separated by commas, or a data frame with columns of these names.
        model: a name or path, or what `load` returned.
        genome: its FASTA, or sequences by contig.
        score: one or more of llr, site, jsd, cosine and l2, comma-separated.
        rc: the mean of both strands, or the forward strand only.
        window: bases of each haplotype.
        grid: windows start at multiples of this.
        downstream: bases scored from the variant on.
        max_allele: longest allele scored, in bases.
        batch_size: windows per forward pass; None for as many as fit in memory.
        device: where to run.
        dtype: of matrix products.

    Returns:
        A row per ALT: chrom, pos, ref, alt, the scores (HYENA_LLR in nats; None where there is none), and
        HYENA_STATUS.

    Raises:
        UsageError: an option has no such value.
        UserError: the input cannot be read.
    """
    check_word("--rc", rc, ("mean", "none"))
    precision, loaded = autocast(resolve_device(device), dtype), load(model, device=device)
    options = ScoringOptions.for_model(
        loaded,
        parse_scores(score),
        both_strands=rc == "mean",
        window=window,
        grid=grid,
        downstream=downstream,
        max_allele=max_allele,
    )
    budget = make_budget(batch_size, loaded.config.d_model, 0, resolve_device(device))
    tokens = budget.tokens if batch_size is None else batch_size * options.rule.read
    rows: Rows = {}
    with ExitStack() as stack:
        reference = stack.enter_context(_open_genome(genome))
        scorer = VariantScorer(loaded, reference.genome, options, batch_tokens=tokens, precision=precision)
        reader = AlleleReader(
            reference.genome, reference.match((), "variants").resolve, options.longest_allele
        )
        source = (
            stack.enter_context(open_variants(variants)) if isinstance(variants, Path) else _records(variants)
        )
        records = list(source)
        scores = scorer.score(allele for record in records for allele in reader.read(record))
        for record in records:
            alleles = [next(scores) for _ in record.alts]
            columns = {"chrom": record.contig, "pos": record.position + 1, "ref": record.ref.decode()}
            _extend(rows, {name: [value] * len(alleles) for name, value in columns.items()})
            _extend(rows, {"alt": [alt.decode() for alt in record.alts], **info_values(options, alleles)})
    return rows


def generate(
    source: Sequences,
    model: Model,
    *,
    fasta: Path | None = None,
    column: str = "sequence",
    stranded: bool = False,
    prompt_length: int | None = None,
    with_prompt: bool = False,
    samples: int = 1,
    length: int | None = None,
    temperature: float = 1.0,
    top_k: int = 4,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    no_repeat: int | None = None,
    max_homopolymer: int | None = None,
    template: str | None = None,
    forbid: str | None = None,
    gc: str | None = None,
    tries: int = 100,
    stop: str | None = None,
    stop_codon: bool = False,
    slide: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Rows:
    """Continue prompts; columns and options are those of `hyena generate`.

    Args:
        source: the prompts, see `Sequences`; strings are named 1, 2, ..., and a name is part of what a sample
            depends on.
        model: a name or path, or what `load` returned.
        fasta: genome of the regions, if the source is a BED.
        column: of a table or data frame, with the sequences.
        stranded: read regions on the - strand as reverse complement.
        prompt_length: bases of each prompt that are used, its last ones.
        with_prompt: begin each sequence with its prompt.
        samples: sequences for each prompt.
        length: new bases; None for those of the template, or else 500.
        temperature: 0 for always the likeliest base.
        top_k: bases that remain.
        top_p: probability that remaining bases have together.
        min_p: least share of the likeliest base's probability.
        seed: of the samples.
        no_repeat: length of words that must not come twice.
        max_homopolymer: longest run of a base.
        template: IUPAC letters of the new bases.
        forbid: comma-separated IUPAC words.
        gc: percent of G and C, as "35-65".
        tries: times a sequence is drawn before it is REJECTED.
        stop: comma-separated IUPAC words that end a sequence.
        stop_codon: end after a stop codon in frame.
        slide: drop the oldest half of a full context.
        batch_size: sequences continued together; None for as many as fit in memory.
        device: where to run.
        dtype: of matrix products.

    Returns:
        A row per sequence: id, sample, n_prompt, n_bases, status, tries, logp_sum, logp_mean, gc,
        max_homopolymer, prompt_repeat and sequence.

    Raises:
        UsageError: no sequence meets the constraints, or an option has no such value.
        UserError: the input cannot be read.
    """
    drawing = DrawingOptions(
        samples=samples,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        no_repeat=no_repeat,
        max_homopolymer=max_homopolymer,
        template=template,
        forbid=forbid,
        gc=gc,
        tries=tries,
        stop=stop,
        stop_codon=stop_codon,
        slide=slide,
    )
    options = parse_options(drawing)
    check_range("--prompt-length", prompt_length, 1)
    precision = None if dtype == "float32" else autocast(resolve_device(device), dtype)
    loaded = load(model, device=device)
    rows: Rows = {}
    with _open(source, fasta, column, prompt_length or 0) as records:
        prompts = (prompt_of(record, prompt_length, stranded=stranded) for record in records)
        answers = generate_records(loaded, prompts, options, batch_size=batch_size, precision=precision)
        for answer in answers:
            _extend(rows, generated_row(answer, with_prompt=with_prompt))
    return rows


@contextmanager
def _open(
    source: Sequences, fasta: Path | None, column: str, flank: int
) -> Iterator[Iterable[SequenceRecord]]:
    """Open what a source holds as records."""
    if isinstance(source, Path):
        opened = SequenceInput(verb="read", source=source, fasta=fasta, flank=flank, sequence_column=column)
        with ExitStack() as stack:
            yield opened.open(stack, None).records
        return
    if fasta is not None:
        raise UsageError("is the genome of regions", at="fasta", remedy="give the BED as a pathlib.Path")
    yield _sequence_records(source, column)


def _sequence_records(source: Any, column: str) -> Iterator[SequenceRecord]:
    ids: Iterable[Any] | None = None
    if isinstance(source, str | bytes):
        source = [source]
    elif hasattr(source, "keys"):
        if column not in source.keys():  # noqa: SIM118  (a data frame's keys are its columns)
            known = ", ".join(map(str, source.keys()))
            raise UsageError(f"no column '{column}'", at="source", remedy=f"name one of: {known}")
        ids, source = source["id"] if "id" in source.keys() else None, source[column]  # noqa: SIM118
    names = (str(number) for number in range(1, 1 << 62)) if ids is None else map(str, ids)
    for item, name in zip(source, names, strict=False):
        if isinstance(item, SequenceRecord):
            yield item
            continue
        if not isinstance(item, str | bytes):
            raise UsageError(f"holds a {type(item).__name__}", at="source", remedy="give sequences as str")
        bases, status, problem = read_bases(item.encode() if isinstance(item, str) else item)
        yield SequenceRecord(name, "", 0, len(bases), bases=bases, status=status, problem=problem)


class _GenomeInMemory:
    """Sequences by contig, as a genome."""

    def __init__(self, sequences: Mapping[str, str]) -> None:
        self._sequences = {name: normalise(bases.encode()) for name, bases in sequences.items()}
        self.lengths = {name: len(bases) for name, bases in self._sequences.items()}
        self.circular: frozenset[str] = frozenset()
        self.path = Path("genome")

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """Return the bases [start, end) of a contig."""
        return self._sequences[contig][start:end]


@contextmanager
def _open_genome(genome: Path | Mapping[str, str]) -> Iterator[Reference]:
    if isinstance(genome, str | Path):
        with open_reference(Path(genome), "auto", None) as reference:
            yield reference
    else:
        yield Reference(cast("Genome", _GenomeInMemory(genome)), "auto", {})


def _records(variants: Any) -> Iterator[VariantRecord]:
    """Return records of tuples, or of the rows of a data frame."""
    if hasattr(variants, "keys"):
        variants = zip(*(variants[name] for name in ("chrom", "pos", "ref", "alt")), strict=True)
    for line, (chrom, pos, ref, alt) in enumerate(variants, 1):
        text = "\t".join((str(chrom), str(pos), ".", ref, alt)).encode()
        alts = tuple(alt.encode().split(b","))
        yield VariantRecord(line, text, b"\n", str(chrom), int(pos) - 1, ref.encode(), alts)


def _extend(rows: Rows, more: Mapping[str, Any]) -> None:
    for name, values in more.items():
        rows.setdefault(name, []).extend(values.tolist() if isinstance(values, np.ndarray) else values)
