"""Scores of alleles: two whole passes per allele and strand give the same, whatever shares a window."""

import copy
import random
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.variant import Variant
from hyenacli.readers.genome import fetch_around
from hyenacli.variants import scores
from hyenacli.variants.haplotypes import (
    Strand,
    WindowRule,
    build_haplotypes,
    status_of,
    tokens,
    window_status,
)
from hyenacli.variants.scorer import AlleleScore, ScoringOptions, VariantScorer
from hyenacli.variants.scores import SCORES
from hyenadna import HyenaConfig, HyenaDNA, SoftPromptConfig, add_soft_prompt
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.tokenizer import A, T


class InMemory:
    """A genome of a few contigs."""

    def __init__(self, circular: frozenset[str] = frozenset(), **contigs: str):
        self.circular = circular
        self.contigs = {name: bases.encode() for name, bases in contigs.items()}
        self.lengths = {name: len(bases) for name, bases in self.contigs.items()}

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        if contig in self.circular and not 0 <= start <= end <= self.lengths[contig]:
            return fetch_around(self, contig, start, end)
        assert 0 <= start <= end <= self.lengths[contig]
        return self.contigs[contig][start:end]

    def mirrored(self) -> "InMemory":
        return InMemory(**{name: reverse_complement(b).decode() for name, b in self.contigs.items()})


def dna(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


# repeats, so that indels can be spelled in several ways, and a gap
GENOME = InMemory(
    one=dna(80, 1) + "CACACACACA" + dna(50, 2) + "AAAAAAA" + dna(60, 3),
    two=dna(30, 4),
    gap="N" * 90 + dna(60, 5),
)


@pytest.fixture(scope="module")
def model() -> HyenaDNA:
    torch.manual_seed(3)
    model = HyenaDNA(HyenaConfig(8, 2, 16, 130)).double().eval()
    with torch.no_grad():  # an untrained model hardly looks back
        for p in model.parameters():
            p.mul_(1.5)
    return model


def with_prompt(model: HyenaDNA, n_soft: int) -> HyenaDNA:
    prompted = copy.deepcopy(model)
    add_soft_prompt(prompted, SoftPromptConfig(n_soft), base="base")
    torch.nn.init.normal_(prompted.backbone.prompt.vectors, generator=torch.Generator().manual_seed(n_soft))
    return prompted


def recipe(rule: WindowRule, scores: tuple[str, ...] = tuple(SCORES), *, both: bool = True) -> ScoringOptions:
    return ScoringOptions(rule, scores, both)


def scored(
    model: HyenaDNA,
    how: ScoringOptions,
    alleles: Sequence[Variant | str],
    genome: InMemory = GENOME,
    **changes: int,
) -> list[AlleleScore]:
    scorer = VariantScorer(model, genome, how, **({"batch_tokens": 1_000} | changes), precision=nullcontext())
    return list(scorer.score(alleles))


def brute_force(
    model: HyenaDNA, options: ScoringOptions, allele: Variant, genome: InMemory
) -> dict[str, float]:
    """By the definition: whole haplotypes, whole windows, every position by itself."""
    contig, size = genome.contigs[allele.contig], options.rule.size
    haplotype = contig[: allele.position] + allele.alt + contig[allele.position + len(allele.ref) :]
    windows, offsets = [], []
    for reverse in (False, True)[: 1 + options.both_strands]:
        pair = [reverse_complement(b) if reverse else b for b in (contig, haplotype)]
        padded = [b"N" * 200 + b + b"N" * 400 for b in pair]
        site = next(i for i, (a, b) in enumerate(zip(*padded, strict=False)) if a != b) - 200
        start = (site - size // 2) // options.rule.grid * options.rule.grid
        windows += [torch.from_numpy(tokens(b[200 + start : 200 + start + size])).long() for b in padded]
        offsets.append(site - start)
    with torch.no_grad():
        out = model.plain(torch.stack(windows))
    log_p = out.logits[..., A : T + 1].log_softmax(-1)
    by_strand = []
    for strand, offset in enumerate(offsets):
        rows = (2 * strand, 2 * strand + 1)
        scored = range(offset, min(size, offset + (options.rule.downstream or size)))
        real = [[i for i in scored if A <= windows[row][i] <= T] for row in rows]
        nats = [
            {i: float(log_p[row, i - 1, windows[row][i] - A]) for i in kept}
            for row, kept in zip(rows, real, strict=True)
        ]
        pooled = [out.hidden[row, kept].mean(0) for row, kept in zip(rows, real, strict=True)]
        both = all(offset in kept for kept in real)
        p = [log_p[row].exp() for row in rows]
        jsd = [
            float(
                sum(
                    (q * (2 * q / (p[0][i - 1] + p[1][i - 1])).log2()).sum()
                    for q in (p[0][i - 1], p[1][i - 1])
                )
            )
            for i in real[0]
            if i > offset and i in real[1]
        ]
        by_strand.append(
            {
                "llr": sum(nats[1].values()) - sum(nats[0].values()),
                "site": nats[1][offset] - nats[0][offset] if both else np.nan,
                "jsd": sum(jsd) / 2 / len(jsd) if jsd else np.nan,
                "cosine": 1 - float(torch.cosine_similarity(*pooled, dim=0)),
                "l2": float((pooled[1] - pooled[0]).norm()),
            }
        )
    return {name: sum(values[name] for values in by_strand) / len(by_strand) for name in options.scores}


def alleles_of(contig: str, count: int, seed: int) -> list[Variant]:
    """Substitutions, insertions, deletions and mixtures anywhere, both ends included."""
    draw, bases, found = random.Random(seed), GENOME.contigs[contig], list[Variant]()
    while len(found) < count:
        at = draw.choice([0, len(bases) - 1, draw.randrange(len(bases))])
        ref = bases[at : at + draw.choice([0, 1, 1, 2, 5])]
        alt = "".join(draw.choices("ACGT", k=draw.choice([0, 1, 1, 2, 6]))).encode()
        variant = Variant(contig, at, ref, alt)
        if variant.kind != "identical" and b"N" not in ref:
            found.append(variant)
    return found


def check(found: AlleleScore, expected: dict[str, float], tolerance: float) -> None:
    assert found.values.keys() == expected.keys()
    for name, value in expected.items():
        assert found.values[name] == pytest.approx(value, abs=tolerance, nan_ok=True), name


@pytest.mark.parametrize("downstream", [None, 1, 7])
@pytest.mark.parametrize("grid", [1, 8, 32])
def test_every_kind_of_allele_equals_brute_force(model: HyenaDNA, grid: int, downstream: int | None) -> None:
    how = recipe(WindowRule(64, grid, downstream))
    alleles = [*alleles_of("one", 40, grid), *alleles_of("two", 10, grid)]
    for allele, found in zip(alleles, scored(model, how, alleles), strict=True):
        at_end = allele.position < 32 + grid or allele.position > GENOME.lengths[allele.contig] - 66
        assert found.status == "OK" or (found.status == "EDGE" and at_end)
        check(found, brute_force(model, how, allele, GENOME), 1e-9)


def test_float32_is_close_enough(model: HyenaDNA) -> None:
    how = recipe(WindowRule(128, 16), both=False)
    alleles = alleles_of("one", 20, 0)
    single = HyenaDNA(model.config).eval()
    single.load_state_dict(model.state_dict())
    for allele, found in zip(alleles, scored(single, how, alleles), strict=True):
        check(found, brute_force(model, how, allele, GENOME), 1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n_soft", [3, 66])
def test_a_soft_prompt_is_context_of_both_haplotypes(
    model: HyenaDNA, n_soft: int, dtype: torch.dtype
) -> None:
    how, alleles = recipe(WindowRule(64, 8)), [*alleles_of("one", 20, 2), *alleles_of("two", 5, 2)]
    prompted, changes = with_prompt(model, n_soft), []
    found = scored(copy.deepcopy(prompted).to(dtype), how, alleles)
    for allele, one, bare in zip(alleles, found, scored(model, how, alleles), strict=True):
        check(one, brute_force(prompted, how, allele, GENOME), 1e-9 if dtype == torch.float64 else 1e-3)
        changes.append(abs(one.values["llr"] - bare.values["llr"]))
    assert max(changes) > 0.005


def test_windows_leave_room_for_a_soft_prompt(model: HyenaDNA) -> None:
    assert ScoringOptions.for_model(model).rule == WindowRule(128, 32, 32)
    assert ScoringOptions.for_model(model).longest_allele == 32
    prompted = with_prompt(model, 30)
    assert ScoringOptions.for_model(prompted).rule == WindowRule(100, 25, 25)
    assert ScoringOptions.for_model(prompted, window=100).rule.size == 100
    assert ScoringOptions.for_model(model, window=64, downstream=4).rule == WindowRule(64, 28, 4)
    assert ScoringOptions.for_model(model, window=64, downstream=64).rule == WindowRule(64, 8)
    with pytest.raises(UsageError, match="takes at most 100 after a soft prompt of 30 in 130, not 101"):
        ScoringOptions.for_model(prompted, window=101)
    with pytest.raises(UsageError, match="takes at most 128 bases, not 131"):
        ScoringOptions.for_model(model, window=131)


def test_a_pass_holds_no_more_than_it_may(model: HyenaDNA, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    class Watched(ReferencePass):
        def __init__(self, model: HyenaDNA, ids_BL: torch.Tensor, first: int):
            read.append(ids_BL.shape[0] * (model.backbone.n_soft + ids_BL.shape[1]))
            super().__init__(model, ids_BL, first)

    monkeypatch.setattr(scores, "ReferencePass", Watched)
    scored(with_prompt(model, 60), recipe(WindowRule(64, 8)), alleles_of("one", 30, 5), batch_tokens=300)
    assert max(read) == 2 * (60 + 64)


@pytest.mark.parametrize("scores", [("site",), ("llr",), ("l2", "site"), ("cosine", "llr")])
def test_scores_asked_for_alone_are_the_same(model: HyenaDNA, scores: tuple[str, ...]) -> None:
    rule, alleles = WindowRule(64, 8, 9), alleles_of("one", 20, 5)
    together = scored(model, recipe(rule), alleles)
    for found, whole in zip(scored(model, recipe(rule, scores), alleles), together, strict=True):
        assert list(found.values) == list(scores)
        check(found, {name: whole.values[name] for name in scores}, 1e-9)


def test_the_site_alone_is_read_no_further(model: HyenaDNA, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    class Watched(ReferencePass):
        def __init__(self, model: HyenaDNA, ids_BL: torch.Tensor, first: int):
            read.append(ids_BL.shape[1])
            super().__init__(model, ids_BL, first)

        def suffixes(self, batch: Sequence[Suffix]) -> list[torch.Tensor]:
            assert not batch
            return []

    monkeypatch.setattr(scores, "ReferencePass", Watched)
    alleles = alleles_of("one", 20, 5)
    rule = WindowRule(64, 8)
    for allele, found in zip(alleles, scored(model, recipe(rule, ("site",)), alleles), strict=True):
        check(found, brute_force(model, recipe(rule, ("site",)), allele, GENOME), 1e-9)
    assert set(read) == {32 + 8}


def test_the_same_list_gives_the_same_bits(model: HyenaDNA) -> None:
    alleles = alleles_of("one", 30, 9)
    scorer = VariantScorer(
        model, GENOME, recipe(WindowRule(64, 8)), batch_tokens=300, precision=nullcontext()
    )
    first = [repr(score) for score in scorer.score(alleles)]
    list(scorer.score(alleles[::3]))
    assert [repr(score) for score in scorer.score(alleles)] == first


@settings(max_examples=15)
@given(st.integers(40, 4_000), st.permutations(range(24)))
def test_nothing_depends_on_company(model: HyenaDNA, batch_tokens: int, order: list[int]) -> None:
    how, alleles = recipe(WindowRule(64, 16)), alleles_of("one", 24, 7)
    expected = scored(model, how, alleles)
    found = scored(model, how, [alleles[i] for i in order], batch_tokens=batch_tokens)
    for i, answer in zip(order, found, strict=True):
        assert answer.status == expected[i].status
        check(answer, dict(expected[i].values), 1e-9)


@pytest.mark.parametrize(
    ("bearable", "batch", "fits"),
    [(300, 4096, True), (300, 512, True), (64, 4096, True), (64, 256, True), (20, 4096, False)],
)
def test_where_memory_runs_out_less_is_read_at_a_time(
    model: HyenaDNA, monkeypatch: pytest.MonkeyPatch, bearable: int, batch: int, fits: bool
) -> None:
    how, alleles = recipe(WindowRule(64, 8)), alleles_of("one", 24, 7)
    expected = scored(model, how, alleles)

    class Small(ReferencePass):
        def __init__(self, model: HyenaDNA, ids_BL: torch.Tensor, first: int):
            if ids_BL.numel() > bearable:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            super().__init__(model, ids_BL, first)

    monkeypatch.setattr(scores, "ReferencePass", Small)
    if not fits:
        with pytest.raises(UserError, match="out of memory on cpu with one window of 64 bases; choose"):
            scored(model, how, alleles, batch_tokens=batch)
        return
    for one, other in zip(expected, scored(model, how, alleles, batch_tokens=batch), strict=True):
        check(other, dict(one.values), 1e-9)


@pytest.mark.parametrize("score", SCORES)
def test_a_model_that_gives_nan_is_told(model: HyenaDNA, score: str) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.backbone.ln_f.weight[0] = float("nan")
    how = recipe(WindowRule(64, 8), (score,))
    with pytest.raises(UserError, match="the model gives values that are not finite; use --dtype float32"):
        scored(broken, how, alleles_of("one", 3, 7))


def test_spellings_of_one_indel_get_one_score(model: HyenaDNA) -> None:
    start = GENOME.contigs["one"].index(b"CACACACACA")
    spellings = [
        Variant("one", start, b"CA", b""),
        Variant("one", start + 4, b"CA", b""),
        Variant("one", start + 3, b"AC", b""),
        Variant("one", start, b"CACA", b"CA"),
    ]
    first, *others = scored(model, recipe(WindowRule(64, 8)), spellings)
    for other in others:
        check(other, dict(first.values), 1e-12)


def test_the_other_strand_of_the_genome_gives_the_same(model: HyenaDNA) -> None:
    how, alleles = recipe(WindowRule(64, 8)), alleles_of("one", 30, 9)
    mirrored = [allele.mirrored(GENOME.lengths["one"]) for allele in alleles]
    for one, other in zip(
        scored(model, how, alleles), scored(model, how, mirrored, GENOME.mirrored()), strict=True
    ):
        assert one.status == other.status
        check(one, dict(other.values), 1e-9)


def test_swapping_ref_and_alt_turns_the_sign(model: HyenaDNA) -> None:
    how = recipe(WindowRule(64, 1), ("llr", "site"))
    bases = GENOME.contigs["one"]
    ref = bases[60:61]
    alt = b"C" if ref == b"A" else b"A"
    (there,) = scored(model, how, [Variant("one", 60, ref, alt)])
    swapped = InMemory(one=(bases[:60] + alt + bases[61:]).decode())
    (back,) = scored(model, how, [Variant("one", 60, alt, ref)], swapped)
    for name in ("llr", "site"):
        assert back.values[name] == pytest.approx(-there.values[name], abs=1e-9)


def test_it_tells_how_far_it_is(model: HyenaDNA) -> None:
    alleles: list[Variant | str] = ["SYMBOLIC", *alleles_of("one", 20, 1)]
    told: list[float] = []
    scorer = VariantScorer(
        model,
        GENOME,
        recipe(WindowRule(64, 8)),
        batch_tokens=200,
        precision=nullcontext(),
        on_progress=told.append,
    )
    list(scorer.score(alleles))
    assert len(told) > 4
    assert sum(told) == 20


def test_statuses_pass_through_in_place(model: HyenaDNA) -> None:
    alleles: list[Variant | str] = ["SYMBOLIC", *alleles_of("one", 2, 1), "NO_CONTIG"]
    found = scored(model, recipe(WindowRule(64, 8)), alleles)
    assert [f.status for f in found][::3] == ["SYMBOLIC", "NO_CONTIG"]
    assert [bool(f.values) for f in found] == [False, True, True, False]


def test_windows_of_n_are_not_scored_and_those_at_the_end_are(model: HyenaDNA) -> None:
    bases = GENOME.contigs["gap"]
    alleles = [
        Variant("gap", at, bases[at : at + 1], b"A" if bases[at] != ord("A") else b"C") for at in (95, 145)
    ]
    found = scored(model, recipe(WindowRule(64, 8)), alleles)
    assert [f.status for f in found] == ["N_WINDOW", "EDGE"]
    assert not found[0].values
    assert np.isfinite(list(found[1].values.values())).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_strand_is_read_ahead(monkeypatch: pytest.MonkeyPatch, *, reverse: bool) -> None:
    genome, reads = InMemory(c=dna(200, 1)), []
    fetch = genome.fetch
    monkeypatch.setattr(genome, "fetch", lambda *where: reads.append(where) or fetch(*where))
    whole = reverse_complement(genome.contigs["c"]) if reverse else genome.contigs["c"]
    strand = Strand(genome, "c", reverse=reverse, read_ahead=20)
    for start in range(0, 190, 2):
        assert strand.bases(start, start + 10) == whole[start : start + 10]
    assert len(reads) <= 11
    for start, end in [(150, 200), (0, 200), (30, 31), (199, 200), (0, 1), (7, 7)]:
        assert strand.bases(start, end) == whole[start:end]


def test_window_status_counts_only_what_the_contig_has() -> None:
    genome = InMemory(c="ACGT" * 3, n="N" * 12)
    rule = WindowRule(64, 8)
    assert window_status(Strand(genome, "c", reverse=False), rule, -26) == "EDGE"
    assert window_status(Strand(genome, "n", reverse=True), rule, -26) == "N_WINDOW"
    assert window_status(Strand(genome, "c", reverse=False), WindowRule(4, 1), 3) == "OK"


@pytest.mark.parametrize(
    ("contig", "position", "ref", "alt", "status"),
    [
        (None, 0, b"A", b"C", "NO_CONTIG"),
        ("c", 1, b"C", b"<DEL>", "SYMBOLIC"),
        ("c", 1, b"C", b"*", "SYMBOLIC"),
        ("c", 1, b"G", b"A", "REF_MISMATCH"),
        ("c", 7, b"TA", b"A", "REF_MISMATCH"),
        ("c", -1, b"N", b"A", "REF_MISMATCH"),
        ("c", 1, b"N", b"A", "N_ALLELE"),
        ("c", 1, b"C", b"R", "N_ALLELE"),
        ("c", 1, b"C", b"CAAAA", "TOO_LONG"),
        ("c", 1, b"CGTA", b"CGTT", "OK"),
        ("c", 1, b"C", b"t", "OK"),
    ],
)
def test_why_an_allele_is_not_scored(
    contig: str | None, position: int, ref: bytes, alt: bytes, status: str
) -> None:
    genome = InMemory(c="ACGTACGT")
    assert status_of(genome, contig, position, ref, alt, max_allele=3) == status


@settings(max_examples=200)
@given(
    st.text("AC", min_size=1, max_size=40),
    st.integers(0, 40),
    st.integers(0, 4),
    st.text("ACG", max_size=4),
    st.booleans(),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([None, 1, 3]),
)
def test_haplotypes_are_those_of_the_changed_contig(
    text: str, at: int, size: int, alt: str, reverse: bool, grid: int, downstream: int | None
) -> None:
    bases = text.encode()
    ref = bases[at : at + size]
    variant = Variant("c", min(at, len(bases)), ref, alt.encode())
    if variant.kind == "identical":
        return
    strand, rule = Strand(InMemory(c=text), "c", reverse=reverse), WindowRule(16, grid, downstream)
    found = build_haplotypes(strand, strand.variant(variant), rule)
    hap = bases[: variant.position] + variant.alt + bases[variant.position + len(ref) :]
    pair = [reverse_complement(b) if reverse else b for b in (bases, hap)]
    padded = [b"N" * 50 + b + b"N" * 100 for b in pair]
    site = next(i for i, (a, b) in enumerate(zip(*padded, strict=False)) if a != b)
    assert found.start + found.offset == site - 50
    assert found.start % grid == 0
    assert 8 <= found.offset < 8 + grid
    n = min(16 - found.offset, downstream or 16)
    assert (found.ref, found.alt) == (padded[0][site : site + n], padded[1][site : site + n])
    assert found.offset + n <= rule.read


CIRCLE = "CACA" + dna(40, 8) + "AAAA" + dna(41, 9) + "CAC" + "CAAA"  # repeats across the end
AROUND = [
    *(("", "CA", 0), ("CA", "", 92), ("A", "", 95), ("C", "T", 0), ("A", "G", 95), ("", "TTG", 95)),
    *(("AACAC", "T", 94), ("CAAAC", "", 92), ("G", "C", 50), ("", "CA", 92)),
]


def allele(position: int, ref: str, alt: str, contig: str = CIRCLE) -> Variant:
    """A variant of a circle, its REF as the circle has it, as far as it is no insertion."""
    own = (contig * 2)[position : position + len(ref)]
    return Variant("c", position, own.encode(), alt.encode())


def test_a_circle_is_scored_as_if_its_ends_were_nowhere(model: HyenaDNA) -> None:
    options = recipe(WindowRule(48, 8))
    circle = InMemory(frozenset({"c"}), c=CIRCLE)
    alleles = [allele(at, ref, alt) for ref, alt, at in AROUND]
    scores_of_circle = scored(model, options, alleles, circle)
    assert [score.status for score in scores_of_circle] == ["OK"] * len(alleles)
    # far from its ends, the same circle unrolled is read in the same windows
    unrolled = InMemory(c=CIRCLE * 5)
    for variant, score in zip(alleles, scores_of_circle, strict=True):
        moved = Variant("c", variant.position + 2 * len(CIRCLE), variant.ref, variant.alt)
        check(score, brute_force(model, options, moved, unrolled), 1e-9)
    for by in (8, 48, 88):
        rotated = InMemory(frozenset({"c"}), c=CIRCLE[by:] + CIRCLE[:by])
        moved_alleles = [
            Variant("c", (variant.position - by) % len(CIRCLE), variant.ref, variant.alt)
            for variant in alleles
        ]
        for one, other in zip(scores_of_circle, scored(model, options, moved_alleles, rotated), strict=True):
            check(other, one.values, 1e-9)


def test_every_spelling_on_a_circle_has_one_score(model: HyenaDNA) -> None:
    circle = InMemory(frozenset({"c"}), c=CIRCLE)
    spellings = [allele(at % len(CIRCLE), "A", "") for at in range(93, 96)]  # the three A before the end
    first, *others = scored(model, recipe(WindowRule(48, 8)), spellings, circle)
    for score in others:
        check(score, first.values, 1e-12)
    homopolymer = InMemory(frozenset({"c"}), c="A" * 64)
    [only] = scored(model, recipe(WindowRule(48, 8)), [Variant("c", 10, b"A", b"")], homopolymer)
    assert (only.status, only.values["llr"]) == ("OK", 0)


@pytest.mark.parametrize(
    ("position", "ref", "status"),
    [
        (95, b"A", "OK"),
        (94, b"AACA", "OK"),
        (94, b"AACC", "REF_MISMATCH"),
        (96, b"C", "REF_MISMATCH"),
        (95, (CIRCLE * 2)[95 : 95 + 97].encode(), "REF_MISMATCH"),
    ],
)
def test_a_ref_may_reach_across_the_end_of_a_circle(position: int, ref: bytes, status: str) -> None:
    circle = InMemory(frozenset({"c"}), c=CIRCLE)
    assert status_of(circle, "c", position, ref, b"T", max_allele=200) == status


@pytest.mark.parametrize("scores", [("llr",), ("site",)])
def test_the_loss_on_the_reference_is_that_of_the_windows_read(
    model: HyenaDNA, scores: tuple[str, ...]
) -> None:
    rule, genome = WindowRule(64, 8), InMemory(c=dna(200, 11))
    how = ScoringOptions(rule, scores, both_strands=False)
    scorer = VariantScorer(model, genome, how, batch_tokens=1000, precision=nullcontext())
    assert np.isnan(scorer.reference_loss)
    position = 100
    ref = genome.fetch("c", position, position + 1)
    list(scorer.score([Variant("c", position, ref, b"A" if ref != b"A" else b"C")] * 2))
    start, read = rule.start(position), 64 if scores == ("llr",) else 32 + 8
    ids = torch.from_numpy(tokens(genome.fetch("c", start, start + read))).long()[None]
    with torch.no_grad():
        log_p = model.plain(ids).logits[0, 31:-1, A : T + 1].log_softmax(-1)
    expected = -float(log_p.gather(-1, (ids[0, 32:] - A)[:, None]).mean())
    assert scorer.reference_loss == pytest.approx(expected, abs=1e-9)
