"""`hyena score-variants`: scores of alleles, or of every substitution of a region."""

from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError
from hyenacli.inference.batching import make_budget, parse_batch_size
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.readers.genome_cache import signature
from hyenacli.readers.shards import fingerprint
from hyenacli.variants.haplotypes import AlleleReader
from hyenacli.variants.input import VariantInput, open_input
from hyenacli.variants.journal import (
    BLOCK_RECORDS,
    describe_run,
    open_journal,
    resume_identity,
    score_records,
)
from hyenacli.variants.progress import ScoringProgress
from hyenacli.variants.saturation import draw_regions
from hyenacli.variants.scorer import VariantScorer
from hyenacli.variants.scores import ScoringOptions, info_fields, info_values, parse_scores
from hyenacli.variants.settings import ScoreVariantsSettings
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.variants import open_annotated, resolve_format
from hyenacli.writers.vcf import shard_line
from hyenadna import load_model
from hyenadna.formats.locate import locate


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
    with open_input(settings, shard.shard, block_records) as source:
        progress = ScoringProgress(settings.check_ref, source)
        _score(settings, shard, source, progress, block_records)
    progress.report(shard)
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
) -> None:
    """Load the model, and write every record with its scores."""
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
    batch_size = parse_batch_size(settings.batch_size)
    budget = make_budget(batch_size, model.config.d_model, 0, device)
    pass_tokens = model.backbone.n_soft + options.rule.read
    scorer = VariantScorer(
        model,
        source.genome,
        options,
        batch_tokens=budget.tokens if batch_size is None else batch_size * pass_tokens,
        precision=autocast(device, settings.dtype),
        on_progress=progress.add_alleles,
    )
    reader = AlleleReader(source.genome, source.contigs, options.longest_allele)
    provenance = describe_run(settings, model)
    # a genome or aliases that were corrected in place give other answers
    naming = (signature(settings.fasta)[:2], *sorted(source.contigs.aliases.items()))
    genome = fingerprint(map(repr, naming), source.genome.lengths)
    identity = resume_identity(settings, provenance, genome, source.shard)
    lines = [] if settings.no_version else [f"##{key}={value}" for key, value in provenance.items()]
    if source.shard:
        # joining counts records where none is left out
        lines.append(shard_line(source.shard["shard"] | {"every_record": settings.check_ref != "x"}))
    fields = info_fields(options)
    with (
        open_journal(shard.target, identity, options.scores, resume=settings.resume) as journal,
        open_annotated(shard.target, settings.output_type, source.header, fields, lines) as out,
    ):
        scored = score_records(source.records, reader.read, scorer, journal, block_records)
        scored = progress.watch(scored, journal)
        if settings.heatmap is not None:
            description = f"{fields[0].description}. Model {settings.model}"
            score = options.scores[0]
            scored = draw_regions(scored, source.regions, source.genome, settings.heatmap, score, description)
        for record, alleles in scored:
            out.write(record, info_values(options, alleles))
