"""Toy models give the arithmetic of pooling exactly; a small real model gives the promises about batches."""

import random
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.embedding import Embedded, embed
from hyenacli.inference.embedding_options import EmbeddingOptions, parse_pool
from hyenacli.readers.records import SequenceRecord
from tests.toys import PLACE, SEEN, ToyModel, tiny_model, toy_states


def stretch(
    region: bytes, left: bytes = b"", right: bytes = b"", strand: str = ".", name: str = "r"
) -> SequenceRecord:
    bases = left + region + right
    return SequenceRecord(name, "chr1", 100, 100 + len(region), strand, bases=bases, left=len(left))


def vectors(model: torch.nn.Module, one: SequenceRecord, recipe: EmbeddingOptions) -> np.ndarray:
    (embedded,) = embed(model, [one], recipe)
    assert embedded.record is one
    return embedded.vectors


def test_the_mean_is_over_real_bases_and_n_is_one() -> None:
    (row,) = vectors(ToyModel(), stretch(b"AACGN"), EmbeddingOptions())[:, 0]
    np.testing.assert_allclose(row[:5], [0.4, 0.2, 0.2, 0.0, 0.2], atol=1e-7)
    assert row[PLACE] == 3
    assert row[SEEN] == pytest.approx((0 + 0 + 1 + 3 + 7) / 5)


def test_flanks_are_read_and_not_pooled() -> None:
    (row,) = vectors(ToyModel(), stretch(b"AC", left=b"TT", right=b"GGG"), EmbeddingOptions())[:, 0]
    assert row[:5].tolist() == [0.5, 0.5, 0, 0, 0]
    assert row[PLACE] == 3.5
    assert row[SEEN] == 6.5


def test_the_minus_strand_is_read_backwards_where_asked() -> None:
    on_minus = stretch(b"AAC", left=b"T", right=b"GG", strand="-")
    (plain,) = vectors(ToyModel(), on_minus, EmbeddingOptions())[:, 0]
    (backwards,) = vectors(ToyModel(), on_minus, EmbeddingOptions(stranded=True))[:, 0]
    assert plain[:4].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert backwards[:4].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3])
    assert backwards[PLACE] == 4
    (unknown,) = vectors(
        ToyModel(), stretch(b"AAC", left=b"T", right=b"GG"), EmbeddingOptions(stranded=True)
    )[:, 0]
    np.testing.assert_array_equal(unknown, plain)


def reference(
    one: SequenceRecord, recipe: EmbeddingOptions, width: int, stride: int, layers: tuple[int, ...]
) -> np.ndarray:
    """The definition, base by base, in plain Python and float64."""
    strands = []
    backwards = recipe.stranded and one.strand == "-"
    for reverse in [backwards] if recipe.rc == "none" else [backwards, not backwards]:
        text = reverse_complement(one.bases) if reverse else one.bases
        first = len(one.bases) - one.left - len(one) if reverse else one.left
        places = list(range(first, first + len(one)))
        kind, size = recipe.pooling.kind, recipe.pooling.size
        if kind == "last":
            places = places[-1:]
        if kind == "center":
            spare = max(0, len(one) - size)
            before = spare - spare // 2 if reverse else spare // 2
            places = places[before : before + min(size, len(one))]
        states = []
        for place in places:
            starts = list(range(0, max(1, places[-1] + 1), stride))
            starts = [min(start, max(0, places[-1] + 1 - width)) for start in starts]
            start = next(s for s in starts if s <= place < s + width)
            state = np.array(toy_states(text[start : start + width])[place - start])
            states.append([state * (1 if layer == -1 else 10.0**layer) for layer in layers])
        if kind == "none":
            pooled = np.array(states[::-1] if reverse else states)
        else:
            pooled = (np.max if kind == "max" else np.mean)(states, axis=0, keepdims=True)
        strands.append(pooled)
    return np.concatenate(strands, axis=2) if recipe.rc == "concat" else np.mean(strands, axis=0)


POOLS = ["mean", "last", "max", "none", "center:1", "center:4", "center:99"]


@pytest.mark.parametrize(("pool", "rc"), list(product(POOLS, ["none", "mean", "concat"])))
def test_every_combination_equals_the_definition(pool: str, rc: str) -> None:
    rng = random.Random(f"{pool} {rc}")
    for _ in range(25):
        lengths = rng.choice([0, 2, 13]), rng.randint(1, 25), rng.choice([0, 1, 13])
        left, region, right = (bytes(rng.choices(b"ACGTN", k=n)) for n in lengths)
        one = stretch(region, left, right, strand=rng.choice("+-."))
        width = rng.randint(1, 8)
        recipe = EmbeddingOptions(
            pooling=parse_pool(pool),
            layer=rng.choice([-1, 1, 2, None]),
            rc=rc,
            stranded=rng.random() < 0.5,
            window=width,
            stride=rng.choice([None, rng.randint(1, width)]),
        )
        model = ToyModel(context=8)
        layers = recipe.layers(model.config)
        wanted = reference(one, recipe, width, recipe.stride or width, layers)
        got = vectors(model, one, recipe)
        np.testing.assert_allclose(got, wanted, rtol=1e-6, err_msg=f"{one} {recipe}")


def test_records_that_cannot_be_embedded_keep_their_place() -> None:
    lost = SequenceRecord("lost", "chrU", 5, 9, status="NO_CONTIG")
    empty = SequenceRecord("empty", "s", 0, 0, status="EMPTY")
    good = stretch(b"ACGTACGTACGT" * 3)
    records = [lost, good, good, empty, lost, good, empty]
    answers = list(embed(ToyModel(), records, EmbeddingOptions()))
    assert [answer.record for answer in answers] == records
    assert [answer.n_bases for answer in answers] == [0, 36, 36, 0, 0, 36, 0]
    assert [answer.vectors is None for answer in answers] == [True, False, False, True, True, False, True]
    assert list(embed(ToyModel(), [lost, lost], EmbeddingOptions())) == [Embedded(lost, 0, None)] * 2
    assert list(embed(ToyModel(), [], EmbeddingOptions())) == []


@pytest.mark.parametrize(
    ("pool", "n"), [("mean", 20), ("max", 20), ("last", 1), ("center:6", 6), ("none", 1)]
)
def test_n_bases_is_what_a_vector_holds(pool: str, n: int) -> None:
    (embedded,) = embed(ToyModel(), [stretch(b"ACGTA" * 4)], EmbeddingOptions(pooling=parse_pool(pool)))
    assert embedded.n_bases == n


def test_only_the_windows_that_are_needed_are_run() -> None:
    model = ToyModel(context=8)
    vectors(model, stretch(b"A" * 800, left=b"C" * 50), EmbeddingOptions(pooling=parse_pool("last")))
    assert model.batches == [(1, 8)]


def tokens_read(model: ToyModel) -> int:
    return sum(rows * length for rows, length in model.batches)


def test_regions_that_read_the_same_windows_share_their_passes() -> None:
    one = stretch(b"GATTACA", left=b"C", strand="+")
    other = stretch(b"TACA", left=b"CGAT", strand="-", name="inside")
    reverse = stretch(b"TGTAATC", right=b"G", name="other strand")
    records = [one, other, one, stretch(b"GAT"), reverse]
    model = ToyModel()
    recipe = EmbeddingOptions(rc="concat", layer=None)
    together = [answer.vectors for answer in embed(model, records, recipe, batch_size=1)]
    # Both strands of the first record, what the second reads on its other strand, both strands of the fourth;
    # the last is the first on the other strand.
    assert tokens_read(model) == 8 + 7 + 4 + 3 + 3
    for record, answer in zip(records, together, strict=True):
        np.testing.assert_array_equal(answer, vectors(ToyModel(), record, recipe))


def test_an_input_of_equal_records_is_read_once_in_sixteen() -> None:
    model = ToyModel()
    answers = list(embed(model, [stretch(b"ACGTA", name=str(n)) for n in range(1000)], EmbeddingOptions()))
    assert tokens_read(model) == 5 * 63
    assert [answer.record.id for answer in answers] == [str(n) for n in range(1000)]
    assert len({answer.vectors.tobytes() for answer in answers}) == 1
    unpooled = ToyModel()
    list(embed(unpooled, [stretch(b"ACGTA")] * 20, EmbeddingOptions(pooling=parse_pool("none"))))
    assert tokens_read(unpooled) == 5 * 20


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (EmbeddingOptions(layer=3), "no block 3"),
        (EmbeddingOptions(window=11), "takes at most 8 bases, not 11"),
        (EmbeddingOptions(stride=9), "a stride of 9 skips bases between windows of 8"),
    ],
)
def test_what_the_model_cannot_do_is_said_before_anything_is_run(recipe: EmbeddingOptions, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        embed(ToyModel(), [], recipe)


def test_values_that_are_not_finite_stop_the_run() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.backbone.ln_f.weight[3] = torch.inf
    with pytest.raises(UserError, match="r: the model gives values that are not finite; use --dtype float32"):
        list(embed(model, [stretch(b"ACGT")], EmbeddingOptions()))


def test_memory_running_out_changes_nothing() -> None:
    records = [stretch(b"ACGTN" * n, name=str(n)) for n in range(1, 12)]
    calm = list(embed(ToyModel(), records, EmbeddingOptions()))
    pressed = list(embed(ToyModel(memory=20), records, EmbeddingOptions()))
    for one, other in zip(calm, pressed, strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)


@settings(max_examples=25)
@given(
    st.lists(st.text("ACGTN", min_size=1, max_size=90), min_size=1, max_size=8),
    st.sampled_from([None, 1, 3]),
    st.sampled_from(POOLS),
    st.sampled_from(["none", "mean", "concat"]),
)
def test_a_real_models_answer_does_not_depend_on_the_batch(
    regions: list[str], batch_size: int | None, pool: str, rc: str
) -> None:
    recipe = EmbeddingOptions(pooling=parse_pool(pool), layer=None, rc=rc, window=32, stride=24)
    records = [stretch(region.encode()) for region in regions]
    together = list(embed(MODEL, records, recipe, batch_size=batch_size))
    for one, answer in zip(records, together, strict=True):
        np.testing.assert_allclose(answer.vectors, vectors(MODEL, one, recipe), atol=1e-4, rtol=1e-4)


def test_a_real_models_mean_is_the_mean_of_its_hidden_states() -> None:
    ids = torch.tensor([[7, 8, 9, 10, 11, 7, 7]])
    with torch.inference_mode():
        out = MODEL(ids, hidden_states=True)
    got = vectors(MODEL, stretch(b"ACGTNAA"), EmbeddingOptions(layer=None))[0]
    for k, states_BLD in enumerate([*out.hidden_states, out.hidden]):
        np.testing.assert_allclose(got[k], states_BLD[0].mean(0).numpy(), atol=1e-5)


def test_concatenated_strands_are_those_of_the_reverse_complement() -> None:
    both = vectors(MODEL, stretch(b"ACGGTTTA", left=b"GA", right=b"CCC"), EmbeddingOptions(rc="concat"))
    other = vectors(MODEL, stretch(b"TAAACCGT", left=b"GGG", right=b"TC"), EmbeddingOptions(rc="concat"))
    np.testing.assert_allclose(both[..., :16], other[..., 16:], atol=1e-5)
    np.testing.assert_allclose(both[..., 16:], other[..., :16], atol=1e-5)


MODEL = tiny_model()
