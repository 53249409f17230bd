"""`hyena score-variants`: what a model makes of alleles, or of every substitution of a region."""

import functools
import math
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyenacli import __version__, console
from hyenacli.console import log
from hyenacli.errors import UsageError, UserError
from hyenacli.variants.settings import ScoreVariantsSettings

if TYPE_CHECKING:
    from hyenacli.readers.variant_record import VariantRecord
    from hyenacli.variants.journal import Journal
    from hyenacli.variants.plan import VariantPlan
    from hyenacli.variants.scorer import AlleleScore, ScoringOptions
    from hyenacli.variants.variant_input import VariantInput
    from hyenacli.writers.output_shards import OutputShard
    from hyenacli.writers.vcf_lines import InfoField

_Scored = tuple["VariantRecord", Sequence["AlleleScore"]]

# More REF that differ than this share mean another genome build; so many records tell that from chance.
_WRONG_BUILD, _ENOUGH = 0.01, 200
# Records from one look at the progress to the next.
_EVERY = 64
# Settings that change no score, but where it goes, how fast, and of which part of the input.
_NOT_OF_THE_SCORES = {
    *("input", "output", "output_type", "heatmap", "no_version", "shard", "resume"),
    *("batch_size", "device", "threads"),
}


def run(config: ScoreVariantsSettings) -> None:
    """Check the arguments, then output and machine, then the input; load the model, score, and write.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    from hyenacli.inference.batching import parse_batch_size
    from hyenacli.variants.plan import make_plan
    from hyenacli.writers.output_shards import merge_if_last, resolve_shard

    plan = make_plan(
        score=config.score,
        rc=config.rc,
        window=config.window,
        grid=config.grid,
        downstream=config.downstream,
        max_allele=config.max_allele,
    )
    batch_size = parse_batch_size(config.batch_size)
    share = resolve_shard(config.shard, config.output)
    _check_words(config, share)
    _check_surroundings(config, share)
    with ExitStack() as stack:
        source = _open_input(config, share, stack)
        tally = _score(config, plan, batch_size, share, source, stack)
    tally.report(share)
    merge_if_last(share)


def _check_words(config: ScoreVariantsSettings, share: "OutputShard") -> None:
    """Refuse what cannot mean anything, before anything is opened."""
    if config.input is None and not config.all_snvs:
        raise UsageError("nothing to score", remedy="name a VCF, or regions with --all-snvs")
    if config.all_snvs and config.regions_file is not None:
        raise UsageError("-R picks records of a VCF", remedy="with --all-snvs give the BED as INPUT")
    if config.all_snvs and (config.input is None) == (not config.region):
        remedy = "give a BED as INPUT, or -r, not both" if config.region else "give a BED as INPUT, or -r"
        raise UsageError("--all-snvs needs regions", remedy=remedy)
    if config.heatmap is not None and (not config.all_snvs or share.shard is not None):
        raise UsageError(
            "a picture needs every substitution", at="--heatmap", remedy="use it with --all-snvs, unsharded"
        )
    if share.whole is not None and str(config.input) == "-":
        raise UsageError("several processes cannot share standard input", remedy="write it to a file")
    if config.resume and str(config.output) == "-":
        raise UsageError("stdout keeps no scores", at="--resume", remedy="name a file with -o")


def _check_surroundings(config: ScoreVariantsSettings, share: "OutputShard") -> None:
    """Look at output, machine and model before the input is read, which may take minutes."""
    from hyenacli.devices import autocast, resolve_device
    from hyenacli.writers.vcf import annotated_type
    from hyenadna.formats.locate import locate

    share.check(config.input, config.fasta, config.regions_file, config.contig_aliases)
    annotated_type(share.target, config.output_type, "vcf")
    autocast(resolve_device(config.device), config.dtype)
    locate(config.model)
    share.clear()


def _open_input(config: ScoreVariantsSettings, share: "OutputShard", stack: ExitStack) -> "VariantInput":
    from hyenacli.readers.genome import Genome
    from hyenacli.readers.regions import read_aliases
    from hyenacli.variants.variant_input import Naming, open_file, open_substitutions

    aliases = read_aliases(config.contig_aliases) if config.contig_aliases else {}
    naming = Naming(style=config.contig_style, aliases=aliases)
    genome = stack.enter_context(Genome(config.fasta))
    texts = config.region or ()
    if config.all_snvs:
        opened = open_substitutions(config.input, texts, genome, naming, shard=share.shard)
    else:
        opened = open_file(
            config.input or Path("-"),
            genome,
            naming,
            texts=texts,
            bed=config.regions_file,
            shard=share.shard,
            count=console.stderr().is_terminal,
        )
    return stack.enter_context(opened)


def _score(
    config: ScoreVariantsSettings,
    plan: "VariantPlan",
    batch_size: int | None,
    share: "OutputShard",
    source: "VariantInput",
    stack: ExitStack,
) -> "_Tally":
    """Load the model, and write every record with its scores."""
    from hyenacli.devices import autocast, resolve_device, set_threads
    from hyenacli.inference.batching import make_budget
    from hyenacli.inference.perplexity import warn_of_labels
    from hyenacli.readers.genome_cache import signature
    from hyenacli.readers.shards import fingerprint
    from hyenacli.variants.annotate import AlleleReader, score_records
    from hyenacli.variants.journal import open_journal
    from hyenacli.variants.plan import longest_allele
    from hyenacli.variants.saturation import draw_regions
    from hyenacli.variants.scorer import VariantScorer
    from hyenacli.writers.vcf import open_annotated
    from hyenacli.writers.vcf_shards import shard_line
    from hyenadna import load_model, model_sha256

    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    model = load_model(config.model).to(device)
    warn_of_labels(model.config, config.model)
    recipe = plan.recipe(model)
    budget = make_budget(batch_size, model.config.d_model, 0, device)
    pass_tokens = model.backbone.n_soft + recipe.rule.read
    tokens = budget.tokens if batch_size is None else batch_size * pass_tokens
    tally = _Tally(config.check_ref, source)
    scorer = VariantScorer(
        model, source.genome, recipe, batch_tokens=tokens, precision=precision, on_progress=tally.add_alleles
    )
    reader = AlleleReader(source.genome, source.contigs, longest_allele(plan, recipe))
    about = {"hyena_version": __version__, "hyena_command": _command_line(config)}
    about["hyena_model"] = model_sha256(model)
    # a genome or aliases that were corrected in place give other answers
    size_and_time = signature(config.fasta)[:2]
    naming = map(repr, (size_and_time, *sorted(source.contigs.aliases.items())))
    # what is done with a wrong REF changes no score
    command = _command_line(replace(config, check_ref=ScoreVariantsSettings.check_ref))
    genome = fingerprint(naming, source.genome.lengths)
    kept = about | {"hyena_command": command, "genome": genome, "shard": source.shard}
    journal = stack.enter_context(open_journal(share.target, kept, recipe.scores, resume=config.resume))
    provenance = [] if config.no_version else [f"##{key}={value}" for key, value in about.items()]
    if source.shard:
        # joining counts records where none is left out
        provenance.append(shard_line(source.shard["shard"] | {"every_record": config.check_ref != "x"}))
    infos = _fields(recipe)
    out = stack.enter_context(
        open_annotated(share.target, config.output_type, source.header, infos, provenance)
    )
    scored = score_records(source.records, reader.alleles, scorer, journal)
    shown = tally.watch(scored, journal)
    if config.heatmap is not None:
        config.heatmap.mkdir(parents=True, exist_ok=True)
        description = f"{infos[0].description}. Model {config.model}"
        score = recipe.scores[0]
        shown = draw_regions(shown, source.regions, source.genome, config.heatmap, score, description)
    for record, scores in shown:
        out.write(record, _values(infos, scores))
    return tally


def _fields(recipe: "ScoringOptions") -> "list[InfoField]":
    """What is added to INFO, or as columns: the scores, then the status."""
    from hyenacli.variants.haplotypes import STATUSES
    from hyenacli.variants.plan import descriptions
    from hyenacli.writers.vcf_lines import InfoField

    found = [InfoField(_info_id(name), "A", "Float", text) for name, text in descriptions(recipe).items()]
    return [*found, InfoField("HYENA_STATUS", "A", "String", f"One of {', '.join(STATUSES)}")]


def _values(infos: "Sequence[InfoField]", scores: "Sequence[AlleleScore]") -> dict[str, list[Any]]:
    """The values of a record, by the ID of the field."""
    values: dict[str, list[Any]] = {info.id: [] for info in infos}
    for score in scores:
        by_id = {_info_id(name): value for name, value in score.values.items() if not math.isnan(value)}
        for info in infos[:-1]:
            values[info.id].append(by_id.get(info.id))
        values[infos[-1].id].append(score.status)
    return values


def _info_id(score: str) -> str:
    return f"HYENA_{score.upper()}"


def _command_line(config: ScoreVariantsSettings) -> str:
    """The command that gives these scores, whatever the process, the shard and the file they end up in."""
    words = ["hyena", "score-variants", *([str(config.input)] if config.input else [])]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in _NOT_OF_THE_SCORES or value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        for one in value if isinstance(value, list) else [value]:
            words += [flag] if one is True else [flag, str(one)]
    return shlex.join(words)


class _Tally:
    """Counts of a run: a progress bar while records are scored, the check of REF, one line at the end."""

    def __init__(self, choice: str, source: "VariantInput") -> None:
        from hyenacli.variants.annotate import RefCheck

        self._choice, self._source, self._refs = choice, source, RefCheck()
        self._statuses: Counter[str] = Counter()
        self._records = self._alleles = self._alleles_before = self._bare = 0
        self._warned, self._reading = False, 0.0
        self._show: Callable[..., None] = lambda **_: None
        self._start = time.monotonic()

    def watch(self, scored: Iterable[_Scored], journal: "Journal") -> Iterator[_Scored]:
        """Pass records on, but those that --check-ref leaves out.

        Raises:
            UserError: a REF is not the genome's, and --check-ref is e.
        """
        with console.progress("{task.completed:.0f} records", "{task.fields[speed]} variants/s") as bar:
            task = bar.add_task("scoring", total=self._source.total, speed="")
            self._show = functools.partial(bar.update, task)
            for record, scores in scored:
                if journal.replaying:  # the speed is that of scoring
                    self._start, self._alleles_before = time.monotonic(), self._alleles
                differs = self._refs.add(scores)
                if differs and self._choice == "e":
                    raise self._differing(record)
                if not (differs and self._choice == "x"):
                    yield record, scores
                self._records += 1
                self._alleles += len(scores)
                self._bare += not scores
                self._reading = max(0.0, self._reading - len(scores))
                self._statuses.update(score.status for score in scores)
                if self._records % _EVERY == 0:
                    self._update()
                    self._ask_for_the_build(at_least=_ENOUGH, so_far=" so far")
            self._update()
        self._ask_for_the_build(at_least=1)

    def add_alleles(self, alleles: float) -> None:
        """So many more are being scored of the block under way, of which no record has come out yet."""
        self._reading += alleles
        self._update()

    def _update(self) -> None:
        self._show(completed=self._records + self._reading, speed=f"{self._speed():,.0f}")

    def report(self, share: "OutputShard") -> None:
        """Say what was done and what could not be."""
        statuses = dict(self._statuses)
        done = sum(statuses.pop(status, 0) for status in ("OK", "EDGE"))
        failed = "".join(f", {count:,} {status}" for status, count in sorted(statuses.items()))
        failed += f", {self._bare:,} without ALT" if self._bare else ""
        left_out = (
            f" ({self._refs.differing:,} left out)" if self._choice == "x" and self._refs.differing else ""
        )
        alleles, records = console.counted(done, "allele"), console.counted(self._records, "record")
        counts = f"{alleles}{failed} of {records}{left_out}"
        seconds = time.monotonic() - self._start
        speed = f"{self._speed():,.0f} variants/s"
        log.info("scored %s in %.1f s (%s), %s", counts, seconds, speed, share.describe())
        console.event(
            "score-variants",
            records=self._records,
            statuses=dict(self._statuses),
            ref_checked=self._refs.checked,
            ref_differing=self._refs.differing,
            seconds=round(seconds, 3),
        )

    def _speed(self) -> float:
        return (self._alleles + self._reading - self._alleles_before) / max(
            1e-9, time.monotonic() - self._start
        )

    def _differing(self, record: "VariantRecord") -> UserError:
        return UserError(
            f"REF of {record.contig}:{record.position + 1} is not what {self._source.genome.path} has there",
            at=self._source.name,
            line=record.line or None,
            remedy="use the genome that the variants were called on, or --check-ref w or x",
        )

    def _ask_for_the_build(self, *, at_least: int, so_far: str = "") -> None:
        refs = self._refs
        if self._warned or refs.checked < at_least or refs.differing <= _WRONG_BUILD * refs.checked:
            return
        self._warned = True
        question = f"is this the genome build of {self._source.name}?"
        log.warning(
            "REF is not what %s has in %s of %s records%s (%.1f %%): %s",
            self._source.genome.path,
            f"{refs.differing:,}",
            f"{refs.checked:,}",
            so_far,
            100 * refs.differing / refs.checked,
            question.upper().replace(self._source.name.upper(), self._source.name)
            if refs.checked >= _ENOUGH
            else question,
        )
