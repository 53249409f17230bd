"""`hyena score-variants`: scores of alleles, or of every substitution of a region."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from hyenacli import console
from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError, UserError
from hyenacli.evaluation.metrics import compare_with_guessing
from hyenacli.inference.batching import make_budget, parse_batch_size
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.readers.genome_cache import signature
from hyenacli.readers.shards import fingerprint
from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.background import ScoreBackground, parse_source
from hyenacli.variants.haplotypes import EDGE, NO_CONTIG, OK, REF_MISMATCH, SYMBOLIC, AlleleReader
from hyenacli.variants.heatmap import draw_regions
from hyenacli.variants.input import VariantInput, open_input
from hyenacli.variants.journal import (
    BLOCK_RECORDS,
    Journal,
    describe_run,
    open_journal,
    output_lock,
    resume_identity,
    score_records,
)
from hyenacli.variants.scorer import (
    AlleleScore,
    ScoredRecord,
    ScoringOptions,
    VariantScorer,
    info_fields,
    info_values,
)
from hyenacli.variants.scores import parse_scores
from hyenacli.variants.settings import ScoreVariantsSettings
from hyenacli.variants.summary import ScoreSummary
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.variants import open_annotated, resolve_format
from hyenacli.writers.vcf import shard_line
from hyenadna import load_model
from hyenadna.formats.load import locate

# A larger share of REF that differ means another genome build; so many records rule out chance.
_WRONG_BUILD_SHARE, _ENOUGH_RECORDS = 0.01, 200
# Contigs that have a warning of their own.
_WARNED_CONTIGS = 5
# Records between two updates of the progress bar.
_UPDATE_EVERY = 64


class ScoringProgress:
    """Counts records and alleles, shows them, and applies --check-ref.

    Args:
        check_ref: w, x or e.
        source: the input.
    """

    def __init__(self, check_ref: str, source: VariantInput) -> None:
        self._check_ref, self._source = check_ref, source
        self._statuses: Counter[str] = Counter()
        self._records = self._alleles = self._replayed = self._without_alt = 0
        self._refs_checked, self._refs_differing = Counter[str](), Counter[str]()
        self._warned, self._in_block = set[str](), 0.0
        self._show: Callable[[float, str], None] = lambda *_: None
        self._start = time.monotonic()

    def watch(self, scored: Iterable[ScoredRecord], journal: Journal) -> Iterator[ScoredRecord]:
        """Pass records on, except those that --check-ref leaves out.

        Raises:
            UserError: a REF is not the genome's, and --check-ref is e.
        """
        with console.Progress("scoring", self._source.total, "records") as bar:
            self._show = bar.update
            for record, scores in scored:
                if journal.replaying:  # the speed is that of scoring
                    self._start, self._replayed = time.monotonic(), self._alleles
                differs = self._compare_ref(record.contig, scores)
                if differs and self._refs_checked[record.contig] >= _ENOUGH_RECORDS:
                    self._warn_of_build(record.contig, so_far=" so far")
                if differs and self._check_ref == "e":
                    raise self._ref_error(record)
                if not (differs and self._check_ref == "x"):
                    yield record, scores
                self._records += 1
                self._alleles += len(scores)
                self._without_alt += not scores
                self._in_block = max(0.0, self._in_block - len(scores))
                self._statuses.update(score.status for score in scores)
                if self._records % _UPDATE_EVERY == 0:
                    self._update()
            self._update()
        for contig, _ in self._refs_differing.most_common():
            self._warn_of_build(contig)
        if len(self._warned) > _WARNED_CONTIGS:
            log.warning("REF differs too often on %d more contigs", len(self._warned) - _WARNED_CONTIGS)

    def add_alleles(self, alleles: float) -> None:
        """Count alleles that have been scored of the current block, of which no record has come out yet."""
        self._in_block += alleles
        self._update()

    def report(self, shard: OutputShard) -> None:
        """Log what was done and what could not be."""
        statuses = dict(self._statuses)
        done = sum(statuses.pop(status, 0) for status in (OK, EDGE))
        failed = "".join(f", {count:,} {status}" for status, count in sorted(statuses.items()))
        failed += f", {self._without_alt:,} without ALT" if self._without_alt else ""
        left_out = self._refs_differing.total() if self._check_ref == "x" else 0
        alleles, records = console.counted(done, "allele"), console.counted(self._records, "record")
        counts = f"{alleles}{failed} of {records}" + (f" ({left_out:,} left out)" if left_out else "")
        seconds = time.monotonic() - self._start
        speed = f"{self._speed():,.0f} variants/s"
        log.info("scored %s in %.1f s (%s), %s", counts, seconds, speed, shard.describe())
        console.event(
            "score-variants",
            records=self._records,
            statuses=dict(self._statuses),
            ref_checked=self._refs_checked.total(),
            ref_differing=self._refs_differing.total(),
            seconds=round(seconds, 3),
        )

    def _compare_ref(self, contig: str, scores: Sequence[AlleleScore]) -> bool:
        """Count a record whose REF could be compared with the genome; return whether it differs."""
        statuses = {score.status for score in scores}
        differs = REF_MISMATCH in statuses
        self._refs_checked[contig] += bool(statuses - {NO_CONTIG, SYMBOLIC})
        self._refs_differing[contig] += differs
        return differs

    def _update(self) -> None:
        self._show(self._records + self._in_block, f"{self._speed():,.0f} variants/s")

    def _speed(self) -> float:
        """Return the alleles scored in a second."""
        scored = self._alleles + self._in_block - self._replayed
        return scored / max(1e-9, time.monotonic() - self._start)

    def _ref_error(self, record: VariantRecord) -> UserError:
        contig, position = record.contig, record.position + 1
        return UserError(
            f"REF of {contig}:{position} differs from {self._source.genome.path}",
            at=self._source.name,
            line=record.line or None,
            remedy="use the genome that the variants were called on, or --check-ref w or x",
        )

    def _warn_of_build(self, contig: str, so_far: str = "") -> None:
        """Ask, once for a contig, whether this is its genome build; in capitals where chance is ruled out."""
        checked, differing = self._refs_checked[contig], self._refs_differing[contig]
        if contig in self._warned or differing <= _WRONG_BUILD_SHARE * checked:
            return
        self._warned.add(contig)
        if len(self._warned) > _WARNED_CONTIGS:
            return
        question = "is this the genome build of"
        log.warning(
            "REF differs from %s in %s of %s records of contig %s%s (%.1f %%): %s %s?",
            self._source.genome.path,
            f"{differing:,}",
            f"{checked:,}",
            contig,
            so_far,
            100 * differing / checked,
            question.upper() if checked >= _ENOUGH_RECORDS else question,
            self._source.name,
        )


def run(settings: ScoreVariantsSettings, block_records: int = BLOCK_RECORDS) -> None:
    """Check the arguments, then output and machine, then the input; load the model, score, and write.

    Args:
        settings: of the command.
        block_records: records that are scored together, and stay in one shard.

    Raises:
        UsageError: arguments that do not go together.
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    shard = resolve_shard(settings.shard, settings.output)
    _check_arguments(settings, shard)
    _check_environment(settings, shard)
    with output_lock(shard.target), open_input(settings, shard.shard, block_records) as source:
        progress = ScoringProgress(settings.check_ref, source)
        summary = _score(settings, shard, source, progress, block_records)
    progress.report(shard)
    summary.report()
    merge_if_last(shard)


def _check_arguments(settings: ScoreVariantsSettings, shard: OutputShard) -> None:
    """Refuse arguments that mean nothing, before anything is opened."""
    parse_scores(settings.score)
    parse_batch_size(settings.batch_size)
    if settings.input is None and not settings.all_snvs:
        raise UsageError("nothing to score", remedy="name a VCF, or regions with --all-snvs")
    if settings.all_snvs and settings.regions_file is not None:
        raise UsageError("-R picks records of a VCF", remedy="with --all-snvs give the BED as INPUT")
    if settings.all_snvs and (settings.input is None) == (not settings.region):
        remedy = "give a BED as INPUT, or -r, not both" if settings.region else "give a BED as INPUT, or -r"
        raise UsageError("--all-snvs needs regions", remedy=remedy)
    if settings.heatmap is not None and (not settings.all_snvs or shard.shard is not None):
        remedy = "use it with --all-snvs, unsharded"
        raise UsageError("a picture needs every substitution", at="--heatmap", remedy=remedy)
    if settings.quantile is not None:
        parse_source(settings.quantile)
    if settings.report is not None and shard.shard is not None:
        raise UsageError("a report needs every allele", at="--report", remedy="use it unsharded")
    if shard.whole is not None and str(settings.input) == "-":
        raise UsageError("several processes cannot share standard input", remedy="write it to a file")
    if settings.resume and str(settings.output) == "-":
        raise UsageError("stdout keeps no scores", at="--resume", remedy="name a file with -o")


def _check_environment(settings: ScoreVariantsSettings, shard: OutputShard) -> None:
    """Check output, machine and model before the input is read, which may take minutes."""
    shard.check(settings.input, settings.fasta, settings.regions_file, settings.contig_aliases)
    resolve_format(shard.target, settings.output_type, "vcf")
    autocast(resolve_device(settings.device), settings.dtype)
    locate(settings.model)
    shard.clear()


def _score(
    settings: ScoreVariantsSettings,
    shard: OutputShard,
    source: VariantInput,
    progress: ScoringProgress,
    block_records: int,
) -> ScoreSummary:
    """Load the model, and write every record with its scores; return what they look like together."""
    device = resolve_device(settings.device)
    set_threads(settings.threads)
    model = load_model(settings.model).to(device)
    warn_of_labels(model.config, settings.model)
    options = ScoringOptions.for_model(
        model,
        parse_scores(settings.score),
        both_strands=settings.rc == "mean",
        window=settings.window,
        grid=settings.grid,
        downstream=settings.downstream,
        max_allele=settings.max_allele,
    )
    for contig in sorted(source.genome.circular):
        length = source.genome.lengths[contig]
        if length < options.rule.size:
            what = f"the circle {contig} has {length:,} bases, fewer than a window of {options.rule.size:,}"
            raise UsageError(what, at=settings.fasta, remedy="choose a smaller --window")
    batch_size = parse_batch_size(settings.batch_size)
    budget = make_budget(batch_size, model.config.d_model, 0, device)
    pass_tokens = model.backbone.n_soft + options.rule.read
    make_scorer = partial(
        VariantScorer,
        model,
        source.genome,
        options,
        batch_tokens=budget.tokens if batch_size is None else batch_size * pass_tokens,
        precision=autocast(device, settings.dtype),
    )
    scorer = make_scorer(on_progress=progress.add_alleles)
    reader = AlleleReader(source.genome, source.resolve, options.longest_allele)
    provenance = describe_run(settings, model)
    # a genome that was corrected in place gives other answers
    genome = fingerprint([repr(signature(settings.fasta)[:2])], source.genome.lengths)
    identity = resume_identity(settings, provenance, genome, source.shard)
    lines = [] if settings.no_version else [f"##{key}={value}" for key, value in provenance.items()]
    if source.shard:
        # joining counts records where none is left out
        lines.append(shard_line(source.shard["shard"] | {"every_record": settings.check_ref != "x"}))
    fields, background, summary = info_fields(options), None, ScoreSummary(options.scores[0])
    if settings.quantile is not None:
        background = ScoreBackground(settings.quantile, settings.seed, source.genome, reader, make_scorer())
        fields += background.fields(options.scores)
    with (
        open_journal(shard.target, identity, options.scores, resume=settings.resume) as journal,
        open_annotated(shard.target, settings.output_type, source.header, fields, lines) as out,
    ):
        scored = score_records(source.records, reader, scorer, journal, block_records)
        scored = progress.watch(scored, journal)
        if settings.heatmap is not None:
            description = f"{fields[0].description}. Model {settings.model}"
            score = options.scores[0]
            scored = draw_regions(scored, source.regions, source.genome, settings.heatmap, score, description)
        for record, alleles in summary.watch(scored):
            values = info_values(options, alleles)
            out.write(record, values | (background.values(options.scores, alleles) if background else {}))
    if settings.report is not None:
        summary.write(settings.report, fields[0], provenance)
    if guessing := compare_with_guessing(scorer.reference_loss):
        log.warning("on the reference of %s, %s: is this the right model?", source.name, guessing)
    return summary
