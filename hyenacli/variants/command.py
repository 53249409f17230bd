"""`hyena score-variants`: scores of alleles, or of every substitution of a region."""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError
from hyenacli.evaluation.metrics import compare_with_guessing
from hyenacli.inference.batching import make_budget, parse_batch_size
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.readers.genome import Genome
from hyenacli.readers.genome_cache import signature
from hyenacli.readers.shards import fingerprint
from hyenacli.variants.background import ScoreBackground, parse_source
from hyenacli.variants.calibration import Calibration, CalibrationSums, read_lines
from hyenacli.variants.columns import AlleleColumns
from hyenacli.variants.haplotypes import AlleleReader
from hyenacli.variants.heatmap import draw_regions
from hyenacli.variants.input import VariantInput, open_input
from hyenacli.variants.journal import (
    BLOCK_RECORDS,
    describe_run,
    open_journal,
    output_lock,
    resume_identity,
    score_records,
)
from hyenacli.variants.phasing import COLUMNS, PhasedTable, phased_calls, phased_rule
from hyenacli.variants.progress import ScoringProgress
from hyenacli.variants.scorer import ScoringOptions, VariantScorer
from hyenacli.variants.scores import parse_scores
from hyenacli.variants.settings import ScoreVariantsSettings
from hyenacli.variants.summary import ScoreSummary
from hyenacli.writers.atomic import ensure_writable, require_suffix
from hyenacli.writers.output_shards import OutputShard, merge_if_last, refuse_shared_stdout, resolve_shard
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenacli.writers.variants import open_annotated, resolve_format
from hyenacli.writers.vcf import shard_line
from hyenadna import load_model
from hyenadna.formats.load import locate


def run(settings: ScoreVariantsSettings, block_records: int = BLOCK_RECORDS) -> None:
    """Check the arguments, then output and machine, then the input; load the model, score, and write.

    Args:
        settings: of the command.
        block_records: records that are scored together, and stay in one shard.

    Raises:
        UsageError: arguments that do not go together.
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    shard = resolve_shard(settings.shard, settings.output, multiqc=settings.multiqc)
    _check_arguments(settings, shard)
    _check_environment(settings, shard)
    with output_lock(shard.target), open_input(settings, shard.shard, block_records) as source:
        if settings.phased is not None:
            phased_calls(source)  # says what the input lacks, before a model is loaded
        progress = ScoringProgress(settings.check_ref, source)
        summary = _score(settings, shard, source, progress, block_records)
    progress.report(shard)
    summary.report()
    shard.write_statuses("score-variants", summary.statuses)
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
    for option in ("report", "phased", "write_calibration") if shard.shard is not None else ():
        if getattr(settings, option) is not None:
            flag = "--" + option.replace("_", "-")
            raise UsageError("needs every allele in one process", at=flag, remedy="use it unsharded")
    _check_tables(settings)
    if shard.whole is not None and str(settings.input) == "-":
        raise UsageError("several processes cannot share standard input", remedy="write it to a file")
    if settings.resume and str(settings.output) == "-":
        raise UsageError("stdout keeps no scores", at="--resume", remedy="name a file with -o")


def _check_tables(settings: ScoreVariantsSettings) -> None:
    """Refuse tables that cannot be read or written."""
    if settings.calibrate is not None:
        read_lines(settings.calibrate)
    if settings.phased is not None:
        if settings.all_snvs:
            what = "every substitution of a region is on no haplotype"
            raise UsageError(what, at="--phased", remedy="give a VCF with phased genotypes")
        table_type(settings.phased, None, SCALAR_TABLES)
    elif settings.phase_span is not None:
        raise UsageError("is for haplotypes", at="--phase-span", remedy="add --phased TABLE")
    require_suffix(settings.report, ".html", "a report is an HTML page")
    refuse_shared_stdout(settings.output, settings.phased, settings.write_calibration)
    tables = [path for path in (settings.phased, settings.write_calibration, settings.report) if path]
    for i, path in enumerate(tables):
        inputs = settings.input, settings.fasta, settings.calibrate
        ensure_writable(path, *inputs, outputs=(settings.output, *tables[:i]))


def _check_environment(settings: ScoreVariantsSettings, shard: OutputShard) -> None:
    """Check output, machine and model before the input is read, which may take minutes."""
    shard.check(settings.input, settings.fasta, settings.regions_file, settings.contig_aliases)
    resolve_format(shard.target, settings.output_type, "vcf")
    autocast(resolve_device(settings.device), settings.dtype)
    locate(settings.model)
    shard.clear()


class _Scoring:
    """What scores the alleles of a run: a model, a genome, and how the one reads the other.

    Args:
        settings: of the command.
        source: the input.
    """

    def __init__(self, settings: ScoreVariantsSettings, source: VariantInput) -> None:
        self._settings, self._source = settings, source
        device = resolve_device(settings.device)
        set_threads(settings.threads)
        model = load_model(settings.model).to(device)
        warn_of_labels(model.config, settings.model)
        self.options = options = ScoringOptions.for_model(
            model,
            parse_scores(settings.score),
            both_strands=settings.rc == "mean",
            window=settings.window,
            grid=settings.grid,
            downstream=settings.downstream,
            max_allele=settings.max_allele,
        )
        _check_circles(source.genome, options)
        batch_size = parse_batch_size(settings.batch_size)
        budget = make_budget(batch_size, model.config.d_model, 0, device)
        pass_tokens = model.backbone.n_soft + options.rule.read
        self.scorer = partial(
            VariantScorer,
            model,
            source.genome,
            batch_tokens=budget.tokens if batch_size is None else batch_size * pass_tokens,
            precision=autocast(device, settings.dtype),
        )
        self.reader = AlleleReader(source.genome, source.resolve, options.longest_allele)
        self.provenance = describe_run(settings, model)

    def identity(self) -> dict[str, Any]:
        """Return what an interrupted run and the one that goes on with it must have in common."""
        # a genome that was corrected in place gives other answers
        contents = [repr(signature(self._settings.fasta)[:2])]
        genome = fingerprint(contents, self._source.genome.lengths)
        return resume_identity(self._settings, self.provenance, genome, self._source.shard)

    def columns(self) -> AlleleColumns:
        """Return what is written of each allele."""
        settings, genome, background, calibration = self._settings, self._source.genome, None, None
        if settings.quantile is not None:
            scorer = self.scorer(self.options)
            background = ScoreBackground(settings.quantile, settings.seed, genome, self.reader, scorer)
        if settings.calibrate is not None:
            model = self.provenance["hyena_model"]
            calibration = Calibration.read(settings.calibrate, genome, self.options, model)
        return AlleleColumns(self.options, self.reader, background, calibration)

    def watchers(self, stack: ExitStack) -> list[PhasedTable | CalibrationSums]:
        """Return what makes other files of the scores, which `stack` closes."""
        settings, source = self._settings, self._source
        watchers: list[PhasedTable | CalibrationSums] = []
        if settings.phased is not None:
            rule, span = phased_rule(self.options.rule, settings.phase_span)
            scorer = self.scorer(replace(self.options, rule=rule, scores=("llr",)))
            table = stack.enter_context(open_table(settings.phased, None, COLUMNS, self.provenance))
            watchers.append(PhasedTable(table, source, self.reader, scorer, span))
        if settings.write_calibration is not None:
            target, model = settings.write_calibration, self.provenance["hyena_model"]
            watchers.append(CalibrationSums(target, source.genome, self.reader, self.options, model))
        return watchers


def _score(
    settings: ScoreVariantsSettings,
    shard: OutputShard,
    source: VariantInput,
    progress: ScoringProgress,
    block_records: int,
) -> ScoreSummary:
    """Load the model, and write every record with its scores; return what they look like together."""
    scoring = _Scoring(settings, source)
    options, provenance, columns = scoring.options, scoring.provenance, scoring.columns()
    scorer = scoring.scorer(options, on_progress=progress.add_alleles)
    summary = ScoreSummary(options.scores[0])
    lines = [] if settings.no_version else [f"##{key}={value}" for key, value in provenance.items()]
    if source.shard:
        # joining counts records where none is left out
        lines.append(shard_line(source.shard["shard"] | {"every_record": settings.check_ref != "x"}))
    with (
        open_journal(shard.target, scoring.identity(), options.scores, resume=settings.resume) as journal,
        open_annotated(shard.target, settings.output_type, source.header, columns.fields, lines) as out,
        ExitStack() as stack,
    ):
        scored = score_records(source.records, scoring.reader, scorer, journal, block_records)
        scored = progress.watch(scored, journal)
        if settings.heatmap is not None:
            description = f"{columns.fields[0].description}. Model {settings.model}"
            score = options.scores[0]
            scored = draw_regions(scored, source.regions, source.genome, settings.heatmap, score, description)
        watchers = scoring.watchers(stack)
        for watcher in watchers:
            scored = watcher.watch(scored)
        for record, alleles in summary.watch(scored):
            out.write(record, columns.values(record, alleles))
    for watcher in watchers:
        watcher.finish()
    if settings.report is not None:
        facts = {"model": settings.model, "sha256 of the model": provenance["hyena_model"]}
        summary.write(settings.report, columns.fields[0], facts, scorer.reference_loss, settings.output)
    if guessing := compare_with_guessing(scorer.reference_loss):
        log.warning("on the reference of %s, %s: is this the right model?", source.name, guessing)
    return summary


def _check_circles(genome: Genome, options: ScoringOptions) -> None:
    """Refuse circles that are smaller than a window."""
    for contig in sorted(genome.circular):
        length = genome.lengths[contig]
        if length < options.rule.size:
            what = f"the circle {contig} has {length:,} bases, fewer than a window of {options.rule.size:,}"
            raise UsageError(what, at=genome.path, remedy="choose a smaller --window")
