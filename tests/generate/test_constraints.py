"""Constraints against plain string searches, and choices of bases against their definition."""

import itertools
import random

import numpy as np
import pytest

from hyenacli.errors import UsageError
from hyenacli.generate.constraints import Automaton, Constraints, RepeatGuard, parse_gc, parse_words
from hyenacli.generate.sampling import SamplingRule, draws
from hyenacli.genome.dna import reverse_complement

ALL = np.ones((1, 4), np.bool_)


def walk(automaton: Automaton, prompt: bytes, length: int, seed: int) -> str:
    """A random walk through what is allowed."""
    rng, state, text = random.Random(seed), automaton.start(prompt), ""
    for position in range(length):
        bases = np.flatnonzero(automaton.allowed(position)[state])
        base = rng.choice(bases.tolist())
        text += "ACGT"[base]
        state = int(automaton.move(np.array([state]), np.array([base]))[0])
    return text


def test_forbidden_words_end_nowhere_in_the_new_bases_on_either_strand() -> None:
    automaton = Automaton(Constraints(length=200, forbid=("GAC", "CWWG", "TTTTA"), max_homopolymer=3))
    words = ["GAC", "GTC", "TTTTA", "TAAAA", *(f"C{a}{b}G" for a in "AT" for b in "AT")]
    words += [base * 4 for base in "ACGT"]
    for seed, prompt in enumerate([b"", b"ACGA", b"CCCC", b"GACTTTT", b"CATNGA"]):
        text = prompt.decode() + walk(automaton, prompt, 200, seed)
        for word in words:
            ends = [i + len(word) for i in range(len(text)) if text.startswith(word, i)]
            assert all(end <= len(prompt) for end in ends), (word, text)


def test_a_template_never_leads_into_a_dead_end() -> None:
    constraints = Constraints(length=12, template="NAATTCRYN", forbid=("GAATTC",))
    automaton = Automaton(constraints)
    for seed in range(20):
        text = walk(automaton, b"", 12, seed)
        assert text[0] != "G"
        assert text[1:6] == "AATTC"
        assert text[6] in "AG"
        assert text[7] in "CT"
    with pytest.raises(UsageError, match="no sequence meets the constraints"):
        Automaton(Constraints(length=9, template="NGAATTCN", forbid=("GAATTC",)))
    with pytest.raises(UsageError, match="no sequence meets the constraints"):
        Automaton(Constraints(length=9, forbid=("A", "C")))
    # all but the alternation of A and T is forbidden, and that only after the right prompt
    only = Automaton(Constraints(length=9, template="A", forbid=("C", "AA")))
    assert not only.allowed(0)[only.start(b"A")].any()
    assert walk(only, b"T", 6, 0) == "ATATAT"


@pytest.mark.parametrize("letters", ["ACGT", "AC"])
def test_repeats_are_words_that_came_before(letters: str) -> None:
    rng = random.Random(1)
    prompt = "".join(rng.choices(letters, k=30))
    guard, text = RepeatGuard(8, prompt.encode()), prompt
    for _ in range(60):
        allowed = guard.allowed()
        for base, free in zip("ACGT", allowed, strict=True):
            word = (text + base)[-8:]
            assert free == (word not in text)
        if not any(allowed):
            break
        base = rng.choice([i for i in range(4) if allowed[i]])
        guard.push(base)
        text += "ACGT"[base]


def test_stops() -> None:
    constraints = Constraints(length=9, stop=("GRC",), stop_codon=True)
    for text, stopped in {"TAA": True, "ATAA": False, "ATGTGA": True, "AGAC": True, "AGTC": False}.items():
        new_BL = np.array([["ACGT".index(base) for base in text]])
        assert constraints.stopped(new_BL).tolist() == [stopped]


def test_gc_and_words_are_parsed() -> None:
    assert parse_gc("30-65%") == (0.3, 0.65)
    assert parse_words("gaattc,GGNCC", "--forbid") == ("GAATTC", "GGNCC")
    for text in ("65-30", "x", "1-200", "5"):
        with pytest.raises(UsageError, match="no range of percent"):
            parse_gc(text)
    with pytest.raises(UsageError, match="'X' is not an IUPAC letter"):
        parse_words("AXC", "--forbid")
    with pytest.raises(UsageError, match="a sequence is empty"):
        parse_words("A,,C", "--forbid")
    with pytest.raises(UsageError, match="stands for more than"):
        Automaton(Constraints(length=9, forbid=("N" * 12,)))


def frequencies(rule: SamplingRule, p: list[float], allowed: str = "ACGT") -> list[float]:
    """How often each base is chosen with evenly spread draws."""
    n = 20_000
    mask = np.array([[base in allowed for base in "ACGT"]] * n)
    chosen, _ = rule.choose(np.log(np.array([p] * n)), mask, (np.arange(n) + 0.5) / n)
    return (np.bincount(chosen, minlength=4) / n).tolist()


P = [0.1, 0.4, 0.3, 0.2]


@pytest.mark.parametrize(
    ("rule", "allowed", "expected"),
    [
        (SamplingRule(), "ACGT", P),
        (SamplingRule(), "AT", [1 / 3, 0, 0, 2 / 3]),
        (SamplingRule(temperature=0.5), "ACGT", [1 / 30, 16 / 30, 9 / 30, 4 / 30]),
        (SamplingRule(temperature=0), "AGT", [0, 0, 1, 0]),
        (SamplingRule(top_k=2), "ACGT", [0, 4 / 7, 3 / 7, 0]),
        (SamplingRule(top_k=2), "AGT", [0, 0, 0.6, 0.4]),
        (SamplingRule(top_p=0.6), "ACGT", [0, 4 / 7, 3 / 7, 0]),
        (SamplingRule(top_p=0.05), "ACGT", [0, 1, 0, 0]),
        (SamplingRule(min_p=0.6), "ACGT", [0, 4 / 7, 3 / 7, 0]),
        # top-k, temperature, top-p: 0.4 and 0.3 become 16/25 and 9/25, and 0.6 keeps the first
        (SamplingRule(temperature=0.5, top_k=2, top_p=0.6), "ACGT", [0, 1, 0, 0]),
    ],
)
def test_bases_are_chosen_by_the_rule(rule: SamplingRule, allowed: str, expected: list[float]) -> None:
    assert frequencies(rule, P, allowed) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "rule",
    [
        SamplingRule(),
        SamplingRule(top_k=2),
        SamplingRule(top_p=0.7),
        SamplingRule(min_p=0.5, temperature=0.7),
    ],
)
def test_a_choice_that_rounding_changes_has_a_small_margin(rule: SamplingRule) -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    p = rng.dirichlet([1] * 4, n)
    near = np.log(p) + rng.uniform(-2e-6, 2e-6, p.shape)
    u, mask = rng.random(n), np.ones((n, 4), np.bool_)
    chosen, margin = rule.choose(np.log(p), mask, u)
    other, _ = rule.choose(near, mask, u)
    changed = chosen != other
    assert (margin[changed] < rule.tolerance).all()
    assert (margin < rule.tolerance).mean() < 0.01


def test_draws_depend_on_every_part() -> None:
    base = (0, "x", b"ACGT", 1, 0)
    changed = [(1, "x", b"ACGT", 1, 0), (0, "y", b"ACGT", 1, 0), (0, "x", b"ACGA", 1, 0)]
    changed += [(0, "x", b"ACGT", 2, 0), (0, "x", b"ACGT", 1, 1)]
    for one, other in itertools.combinations([base, *changed], 2):
        assert not np.isclose(draws(*one, 5), draws(*other, 5)).any()
    assert (draws(*base, 5) == draws(*base, 9)[:5]).all()
    assert ((draws(*base, 99) >= 0) & (draws(*base, 99) < 1)).all()


def test_strands_are_complementary() -> None:
    automaton = Automaton(Constraints(length=300, forbid=("GATTR",)))
    text = walk(automaton, b"", 300, 3).encode()
    for word in (b"GATTA", b"GATTG"):
        assert word not in text
        assert reverse_complement(word) not in text
