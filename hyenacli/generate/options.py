"""What the command and the Python API share: options as they are read, prompts, and the cells of a row."""

import math
from dataclasses import replace

from hyenacli.generate.constraints import Automaton, Constraints, parse_gc, parse_iupac, parse_words
from hyenacli.generate.generation import Generated, GenerationOptions
from hyenacli.generate.sampling import SamplingRule
from hyenacli.generate.settings import DrawingOptions
from hyenacli.readers.records import SequenceRecord
from hyenacli.writers.columns import Batch, Column

_LENGTH = 500
COLUMNS = [
    *(Column("id", str), Column("sample", int), Column("n_prompt", int), Column("n_bases", int)),
    *(Column("status", str), Column("tries", int), Column("logp_sum", float), Column("logp_mean", float)),
    *(Column("gc", float), Column("max_homopolymer", int), Column("prompt_repeat", int)),
    Column("sequence", str),
]


def parse_options(options: DrawingOptions) -> GenerationOptions:
    """Return what is drawn, and how.

    Raises:
        UsageError: an option has no such value, or no sequence meets the constraints.
    """
    template = "" if options.template is None else parse_iupac(options.template, "--template")
    constraints = Constraints(
        length=len(template) or _LENGTH if options.length is None else options.length,
        template=template,
        forbid=parse_words(options.forbid, "--forbid"),
        max_homopolymer=options.max_homopolymer,
        no_repeat=options.no_repeat,
        gc=parse_gc(options.gc),
        stop=parse_words(options.stop, "--stop"),
        stop_codon=options.stop_codon,
    )
    Automaton(constraints)  # what cannot be met is an error before the model is loaded
    return GenerationOptions(
        constraints=constraints,
        rule=SamplingRule(options.temperature, options.top_k, options.top_p, options.min_p),
        samples=options.samples,
        seed=options.seed,
        tries=options.tries,
        slide=options.slide,
    )


def prompt_of(record: SequenceRecord, length: int | None, *, stranded: bool) -> SequenceRecord:
    """Return the bases to continue, in reading direction: of a region those up to its end.

    Args:
        record: a sequence, or a region with as many bases on each side of it.
        length: most bases of a prompt, its last ones; None for those of the record.
        stranded: read regions on their strand.
    """
    bases, before = record.reading(reverse=stranded and record.strand == "-")
    end = before + len(record)
    first = before if length is None else max(0, end - length)
    return replace(record, bases=bases[first:end], left=0)


def generated_row(answer: Generated, *, with_prompt: bool) -> Batch:
    """Return the cells of one sequence."""
    new, prompt = answer.record.bases, answer.prompt.bases
    total = math.fsum(answer.log_p) if new else math.nan
    return {
        "id": [answer.prompt.id],
        "sample": [answer.sample],
        "n_prompt": [len(prompt)],
        "n_bases": [len(new)],
        "status": [answer.status],
        "tries": [answer.tries],
        "logp_sum": [total],
        "logp_mean": [total / len(new) if new else math.nan],
        "gc": [(new.count(b"G") + new.count(b"C")) / len(new) if new else math.nan],
        "max_homopolymer": [longest_run(new)],
        "prompt_repeat": [longest_common_word(new, prompt)],
        "sequence": [((prompt if with_prompt and new else b"") + new).decode()],
    }


def longest_run(bases: bytes) -> int:
    """Return the length of the longest run of one base.

    >>> longest_run(b"ACCCGG"), longest_run(b"")
    (3, 0)
    """
    longest = run = 0
    for i, base in enumerate(bases):
        run = run + 1 if i and base == bases[i - 1] else 1
        longest = max(longest, run)
    return longest


def longest_common_word(new: bytes, prompt: bytes) -> int:
    """Return the length of the longest word of both.

    >>> longest_common_word(b"TTACGT", b"GGACGA"), longest_common_word(b"A", b"")
    (3, 0)
    """
    low, high = 0, min(len(new), len(prompt))
    while low < high:
        size = (low + high + 1) // 2
        words = {prompt[i : i + size] for i in range(len(prompt) - size + 1)}
        if any(new[i : i + size] in words for i in range(len(new) - size + 1)):
            low = size
        else:
            high = size - 1
    return low
