"""`hyena generate`: sequences that follow prompts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError, UserError
from hyenacli.generate.generation import Generated, generate
from hyenacli.generate.options import COLUMNS, generated_row, parse_options, prompt_of
from hyenacli.generate.report import GenerationReport
from hyenacli.generate.settings import GenerateSettings
from hyenacli.genome.contigs import check_naming
from hyenacli.inference.batching import RunSummary, parse_batch_size
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.readers.inputs import SequenceInput
from hyenacli.readers.records import Input, SequenceRecord
from hyenacli.readers.shards import fingerprint
from hyenacli.readers.tables import read_bases
from hyenacli.settings_file import to_dict
from hyenacli.writers.atomic import ensure_writable, require_suffix
from hyenacli.writers.columns import Batch
from hyenacli.writers.fasta import FASTAS, open_fasta_output
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.provenance import provenance_of
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenadna import load_model
from hyenadna.formats.load import locate


def run(config: GenerateSettings) -> None:
    """Check the arguments, then the input, then the output; load the model and write the sequences.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    batch_size = parse_batch_size(config.batch_size)
    kind = table_type(config.output, config.output_type or _stdout_type(config), (*FASTAS, *SCALAR_TABLES))
    check_naming(config.contig_style, config.contig_aliases, config.fasta, config.circular)
    options = parse_options(config)
    output = resolve_shard(config.shard, config.output, multiqc=config.multiqc)
    output.check(config.input, config.fasta, config.contig_aliases)
    _check_report(config, output)
    device = resolve_device(config.device)
    precision = None if config.dtype == "float32" else autocast(device, config.dtype)
    set_threads(config.threads)
    locate(config.model)
    output.clear()
    with ExitStack() as stack:
        inputs = _open_input(config, output, stack)
        model = load_model(config.model).to(device)
        warn_of_labels(model.config, config.model)
        prompts = (
            prompt_of(record, config.prompt_length, stranded=config.stranded) for record in inputs.records
        )
        generated = generate(model, prompts, options, batch_size=batch_size, precision=precision)
        provenance = provenance_of(config, model) | inputs.shard
        summary = RunSummary(
            *("generate", "generating", "generated", "sequence"),
            too_long="use --slide, --prompt-length or a smaller --length",
        )
        total = None if inputs.total is None else inputs.total * config.samples
        report = GenerationReport(config.reference or config.fasta, config.seed)
        with _open_output(output.target, kind, provenance) as write:
            for answer in summary.watch(generated, total):
                row = generated_row(answer, with_prompt=config.with_prompt)
                write(answer, row)
                if config.report is not None:
                    report.add(answer.status, answer.record.bases, row)
        if config.report is not None:
            defaults = {field.name: field.default for field in fields(config)}
            chosen = {name: value for name, value in to_dict(config).items() if value != defaults[name]}
            report.write(config.report, chosen, config.output)
    summary.report(output.describe())
    output.write_statuses(summary.verb, summary.statuses)
    merge_if_last(output)


def _check_report(config: GenerateSettings, output: OutputShard) -> None:
    """Refuse a report of a part, or one that cannot be written."""
    if config.report is None:
        if config.reference is not None:
            raise UsageError("is what a report compares with", at="--reference", remedy="add --report FILE")
        return
    if output.shard is not None:
        raise UsageError("a report needs every sequence", at="--report", remedy="use it unsharded")
    require_suffix(config.report, ".html", "a report is an HTML page")
    ensure_writable(config.report, config.input, config.fasta, config.reference, outputs=(config.output,))
    if config.reference is not None and not config.reference.is_file():
        raise UserError("no such file", at=config.reference, remedy="give a FASTA as --reference")


def _stdout_type(config: GenerateSettings) -> str | None:
    return "fa" if str(config.output) == "-" else None


def _open_input(config: GenerateSettings, output: OutputShard, stack: ExitStack) -> Input:
    """Open the prompts, checked as far as they can be without a model."""
    if config.prompt is not None:
        if config.input is not None or config.region is not None:
            raise UsageError("stands instead of other prompts", at="--prompt", remedy="give one of them")
        bases, status, problem = read_bases(config.prompt.encode())
        if status != "OK":
            raise UsageError(problem, at="--prompt", remedy="give A, C, G and T")
        record = SequenceRecord.of_sequence("prompt", bases)
        if output.shard is None:
            return Input([record], 1)
        part = output.shard.part(1)
        sha256 = fingerprint([config.prompt], {})
        return Input([record][part.start : part.stop], len(part), shard=output.shard.describe(1, sha256))
    inputs = SequenceInput.of(config, "generate from", flank=config.prompt_length or 0)
    return inputs.open(stack, output.shard, several_processes=output.whole is not None)


@contextmanager
def _open_output(
    target: Path, kind: str, provenance: dict[str, Any]
) -> Iterator[Callable[[Generated, Batch], None]]:
    """Open a FASTA or a table, and yield a function that writes one sequence, given its cells too."""
    if kind not in FASTAS:
        with open_table(target, kind, COLUMNS, provenance) as table:
            yield lambda _answer, row: table.write(row)
        return
    with open_fasta_output(target, kind, provenance) as write:

        def write_record(answer: Generated, row: Batch) -> None:
            if answer.n_bases:
                logp, gc = row["logp_mean"][0], row["gc"][0]
                header = f"{answer.prompt.id}/{answer.sample} logp={logp:.4f} gc={gc:.3f}"
                write(f"{header} status={answer.status}", row["sequence"][0].encode())

        yield write_record
