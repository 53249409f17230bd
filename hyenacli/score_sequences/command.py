"""`hyena score-sequences`: bits per base of every sequence."""

from contextlib import ExitStack
from functools import partial

from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.genome.contigs import check_naming
from hyenacli.inference.batching import RunSummary, parse_batch_size
from hyenacli.inference.embedding import RECORD_COLUMNS, record_rows
from hyenacli.inference.embedding_options import EmbeddingOptions, check_stride
from hyenacli.inference.likelihood import SequenceLikelihood, score_sequences
from hyenacli.inference.perplexity import warn_of_labels
from hyenacli.readers.genome import fingerprint
from hyenacli.readers.inputs import SequenceInput
from hyenacli.score_sequences.background import Background
from hyenacli.score_sequences.settings import ScoreSequencesSettings
from hyenacli.writers.columns import Batch, Column
from hyenacli.writers.output_shards import merge_if_last, resolve_shard
from hyenacli.writers.provenance import COORDINATES, provenance_of
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenadna import load_model
from hyenadna.formats.load import locate

COLUMNS = [*RECORD_COLUMNS, Column("log_likelihood", float), Column("bits_per_base", float)]
_QUANTILE = Column("quantile", float)


def run(config: ScoreSequencesSettings) -> None:
    """Check the arguments, then the input, then the output; load the model and write the table.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    batch_size = parse_batch_size(config.batch_size)
    kind = table_type(config.output, config.output_type, SCALAR_TABLES)
    if config.window is not None:
        check_stride(config.window, config.stride)
    check_naming(config.contig_style, config.contig_aliases, config.fasta, config.circular)
    output = resolve_shard(config.shard, config.output, multiqc=config.multiqc)
    output.check(config.input, config.fasta, config.contig_aliases, config.background)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    locate(config.model)
    output.clear()
    options = EmbeddingOptions(
        rc=config.rc, stranded=config.stranded, window=config.window, stride=config.stride
    )
    with ExitStack() as stack:
        inputs = SequenceInput.of(config, "score").open(
            stack, output.shard, several_processes=output.whole is not None
        )
        model = load_model(config.model).to(device)
        warn_of_labels(model.config, config.model)
        score = partial(score_sequences, model, options=options, batch_size=batch_size, precision=precision)
        columns = [*COLUMNS, *(Column(name, str) for name in inputs.columns)]
        background = None
        if config.background is not None:
            background = Background(config.background, config.background_windows, config.seed, score)
            columns.append(_QUANTILE)
        more = {} if config.background is None else {"background": fingerprint(config.background)}
        provenance = provenance_of(config, model, **more, coordinates=COORDINATES) | inputs.shard
        summary = RunSummary("score-sequences", "scoring", "scored")
        mean = _Mean()
        with open_table(output.target, kind, columns, provenance) as table:
            for scored in summary.watch(score(inputs.records), inputs.total):
                mean.add(scored)
                table.write(_rows(scored, background))
    summary.report(output.describe(), mean.describe(), bits_per_base=mean.bits_per_base)
    if mean.bits_per_base > 2 and background is None:  # beside a background, foreign sequences are looked for
        log.warning("the mean is worse than guessing, which is 2 bits per base: is this the right model?")
    output.write_statuses(summary.verb, summary.statuses)
    merge_if_last(output)


def _rows(scored: SequenceLikelihood, background: Background | None) -> Batch:
    row = record_rows(scored.record, scored.n_bases, 1) | {
        "log_likelihood": [scored.log_likelihood],
        "bits_per_base": [scored.bits_per_base],
    }
    return row if background is None else row | {"quantile": [background.quantile(scored)]}


class _Mean:
    """Mean bits per base of all sequences, each weighing as many bases as it has."""

    def __init__(self) -> None:
        self._bits, self._bases = 0.0, 0

    def add(self, scored: SequenceLikelihood) -> None:
        if scored.n_bases:
            self._bits += scored.bits_per_base * scored.n_bases
            self._bases += scored.n_bases

    @property
    def bits_per_base(self) -> float:
        return self._bits / self._bases if self._bases else float("nan")

    def describe(self) -> str:
        return f", {self.bits_per_base:.4f} bits per base" if self._bases else ""
