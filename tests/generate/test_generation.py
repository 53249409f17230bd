"""New sequences: equal to drawing from full passes one by one, whatever the batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenacli.errors import UserError
from hyenacli.generate.constraints import Automaton, Constraints
from hyenacli.generate.generation import Generated, GenerationOptions, generate
from hyenacli.generate.sampling import SamplingRule, draws
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.tokenizer import A, T
from tests.builders import random_dna
from tests.toys import tiny_model

PROMPTS = [
    SequenceRecord.of_sequence(f"p{i}", random_dna(length, i, "ACGTN").encode())
    for i, length in enumerate((3, 17, 1, 17))
]


def options(length: int = 12, **values: object) -> GenerationOptions:
    names = ("rule", "samples", "seed", "tries", "slide")
    return GenerationOptions(
        constraints=Constraints(length=length, **{k: v for k, v in values.items() if k not in names}),
        **{k: v for k, v in values.items() if k in names},
    )


def texts(answers: list[Generated]) -> list[tuple[str, int, bytes, str]]:
    return [(a.prompt.id, a.sample, a.record.bases, a.status) for a in answers]


@torch.no_grad()
def by_passes(model: HyenaDNA, prompt: SequenceRecord, sample: int, how: GenerationOptions) -> Generated:
    """Draw base after base from passes of the plain model in double precision, for the first attempt."""
    exact, automaton = model.double(), Automaton(how.constraints)
    text, state, log_p = prompt.bases, automaton.start(prompt.bases), []
    uniform = draws(how.seed, prompt.id, prompt.bases, sample, 0, how.constraints.length)
    for step in range(how.constraints.length):
        scores = exact.plain(Tokenizer().encode(text)[None]).logits[0, -1, A : T + 1].log_softmax(-1).numpy()
        allowed = automaton.allowed(step)[[state]]
        chosen, _ = how.rule.choose(scores[None], allowed, uniform[step : step + 1])
        state = int(automaton.move(np.array([state]), chosen)[0])
        text += b"ACGT"[chosen[0] : chosen[0] + 1]
        log_p.append(float(scores[chosen[0]]))
    new = SequenceRecord.of_sequence(prompt.id, text[len(prompt.bases) :])
    return Generated(prompt, sample, new, "LENGTH", tuple(log_p), 1)


@pytest.mark.parametrize(
    "rule",
    [SamplingRule(), SamplingRule(temperature=0), SamplingRule(0.7, 3, 0.9, 0.1)],
    ids=["plain", "greedy", "filters"],
)
def test_samples_are_those_of_full_passes_in_any_batch_and_order(rule: SamplingRule) -> None:
    how = options(rule=rule, samples=2, seed=3, forbid=("ACG",), template="NNRNNY")
    expected = [by_passes(tiny_model(), p, s, how) for p in PROMPTS for s in (1, 2)]
    for batch_size in (1, 3, None):
        answers = list(generate(tiny_model(), PROMPTS, how, batch_size=batch_size))
        assert texts(answers) == texts(expected)
        for one, other in zip(answers, expected, strict=True):
            assert one.log_p == pytest.approx(other.log_p, abs=1e-4)
    backwards = list(generate(tiny_model(), PROMPTS[::-1], how))
    assert sorted(texts(backwards)) == sorted(texts(expected))


def test_close_choices_are_made_in_double_precision() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_weight.zero_()
        model.lm_weight[A + 1] = model.lm_weight[A + 2] = 1.0  # C and G are equally likely
    how = options(rule=SamplingRule(temperature=0), length=8)
    runs = [texts(list(generate(model, PROMPTS, how, batch_size=b))) for b in (1, 2, None)]
    assert runs[0] == runs[1] == runs[2]


def test_constraints_hold_and_rejections_are_counted() -> None:
    how = options(length=24, samples=2, gc=(0.3, 0.7), no_repeat=8, max_homopolymer=2)
    answers = list(generate(tiny_model(), PROMPTS, how))
    assert {a.status for a in answers} == {"LENGTH"}
    assert max(a.tries for a in answers) > 1
    for a in answers:
        new, text = a.record.bases, a.prompt.bases + a.record.bases
        assert 0.3 <= (new.count(b"G") + new.count(b"C")) / 24 <= 0.7
        assert not any(base * 3 in new for base in (b"A", b"C", b"G", b"T"))
        words = [text[i : i + 8] for i in range(len(text) - 7)]
        assert len(words) == len(set(words))
    small = list(generate(tiny_model(), PROMPTS, how, batch_size=3))
    assert texts(small) == texts(answers)
    assert [a.tries for a in small] == [a.tries for a in answers]
    never = options(length=6, gc=(1, 1), template="ANNNNN", tries=3)
    assert {(a.status, a.tries, a.n_bases) for a in generate(tiny_model(), PROMPTS, never)} == {
        ("REJECTED", 3, 0)
    }


def test_stops_end_sequences_early() -> None:
    how = options(length=30, samples=3, stop=("AC",), stop_codon=True)
    answers = list(generate(tiny_model(), PROMPTS, how))
    free = list(generate(tiny_model(), PROMPTS, options(length=30, samples=3)))
    assert {"STOP"} <= {a.status for a in answers}
    for a, whole in zip(answers, free, strict=True):
        new = a.record.bases
        assert whole.record.bases.startswith(new)
        ends = new.endswith(b"AC") or (len(new) % 3 == 0 and new[-3:] in (b"TAA", b"TAG", b"TGA"))
        assert (a.status == "STOP") == ends
        assert len(a.log_p) == len(new)
        assert b"AC" not in new[:-1]


def test_a_full_context_is_refused_or_slides() -> None:
    model = tiny_model(context=30)  # takes 32 tokens
    assert model.longest_input == 32
    lengths = (3, 12, 13, 40)
    prompts = [SequenceRecord.of_sequence(f"p{n}", random_dna(n, n).encode()) for n in lengths]
    refused = list(generate(model, prompts, options(length=21)))
    assert [a.status for a in refused] == ["LENGTH", "LENGTH", "TOO_LONG", "TOO_LONG"]
    how = options(length=50, slide=True)
    slid = list(generate(model, prompts, how))
    assert [len(a.record.bases) for a in slid] == [50] * 4
    assert texts(list(generate(model, prompts, how, batch_size=1))) == texts(slid)
    # by hand: a full context keeps its last half
    uniform = draws(0, "p13", prompts[2].bases, 1, 0, 50)
    exact, text, first = tiny_model(context=30).double(), prompts[2].bases, 0
    for u in uniform:
        if len(text) - first > 32:
            first = len(text) - 16
        with torch.no_grad():
            logits = exact.plain(Tokenizer().encode(text[first:])[None]).logits[0, -1, A : T + 1]
        chosen, _ = SamplingRule().choose(
            logits.log_softmax(-1).numpy()[None], np.ones((1, 4), np.bool_), np.array([u])
        )
        text += b"ACGT"[chosen[0] : chosen[0] + 1]
    assert slid[2].record.bases == text[13:]


def test_what_cannot_be_continued_has_a_status() -> None:
    gone = SequenceRecord("gone", "c", 0, 5, status="NO_CONTIG")
    answers = list(generate(tiny_model(), [gone, PROMPTS[0]], options(samples=2)))
    assert [(a.sample, a.status, a.n_bases) for a in answers] == [
        (1, "NO_CONTIG", 0),
        (2, "NO_CONTIG", 0),
        (1, "LENGTH", 12),
        (2, "LENGTH", 12),
    ]
    stuck = replace(PROMPTS[0], bases=b"AAAA")
    how = options(template="A", forbid=("AA",))
    assert [a.status for a in generate(tiny_model(), [stuck], how)] == ["NO_SOLUTION"]


def test_values_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_weight.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        list(generate(model, PROMPTS, options()))
