"""Species of contigs equal the model called window by window, however contigs are batched and ordered."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenacli.errors import UsageError, UserError
from hyenacli.evaluation.calibration import probabilities
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.embedding_options import even_windows
from hyenacli.inference.prediction import Predicted, predict, prediction_options
from hyenacli.readers.records import SequenceRecord
from hyenacli.readers.sequences import FastaRecord
from hyenacli.readers.shards import Shard
from hyenacli.readers.text import open_binary
from hyenacli.species.predict import (
    SpeciesTable,
    classify,
    file_names,
    open_contigs,
    open_split,
    species_head,
    species_options,
)
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.config import HeadConfig
from tests.builders import random_dna, write_bytes
from tests.toys import tiny_model

THREE = HeadConfig("multiclass", 3, ("human", "mouse", "E. coli"))


def with_head(head: HeadConfig = THREE, context: int = 32) -> HyenaDNA:
    """A small model whose head has weights large enough to matter."""
    model = tiny_model(context=context)
    model.set_head(head, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.head.output_transform.weight.mul_(20)
    return model


MODELS = {"three": with_head(), "two": with_head(HeadConfig("binary", 2, ("human", "mouse"), pool="last"))}


def contig(bases: str, name: str = "c") -> FastaRecord:
    return FastaRecord(name, "", bases.encode())


def classified(
    model: HyenaDNA,
    contigs: list[FastaRecord],
    *,
    min_length: int = 1,
    circles: str = "",
    batch_size: int = 4,
    **how: object,
) -> list[Predicted]:
    recipe = species_options(model.config.head, **{"rc": False} | how)
    limits = {"min_length": min_length, "circles": circles, "batch_size": batch_size}
    answers = classify(model, contigs, recipe, **limits)
    return [answer for _, answer in answers]


def shares(logits: np.ndarray) -> np.ndarray:
    return probabilities("multiclass", logits)


def log_p(model: HyenaDNA, bases: bytes, *, rc: bool) -> np.ndarray:
    """Log-probabilities (S,) of one window: the mean of the strands', each from the model itself."""
    strands = []
    for read in (bases, reverse_complement(bases))[: 2 if rc else 1]:
        ids = torch.from_numpy(Tokenizer().encode_array(read)).long()[None]
        with torch.inference_mode():
            logits_C = model(ids).head_logits[0].double()
        if len(logits_C) == 1:
            logits_C = torch.cat([torch.zeros(1), logits_C])
        strands.append(logits_C.log_softmax(0).numpy())
    return np.mean(strands, axis=0)


def by_hand(
    model: HyenaDNA, bases: bytes, width: int, stride: int, *, rc: bool
) -> tuple[list[tuple[int, int]], int, np.ndarray | None]:
    """The rule base by base: windows read, bases read, and the probabilities of the contig."""
    windows = even_windows(len(bases), width, stride)
    kept = [(a, b) for a, b in windows if sum(base == ord("N") for base in bases[a:b]) <= (b - a) / 2]
    if not kept:
        return [], 0, None
    mean = np.mean([log_p(model, bases[a:b], rc=rc) for a, b in kept], axis=0)
    return kept, len({at for a, b in kept for at in range(a, b)}), np.exp(mean) / np.exp(mean).sum()


@settings(max_examples=20)
@given(
    st.lists(
        st.lists(st.sampled_from(["N" * 9, "ACGT", "TTGCA", "N", "G"]), min_size=1, max_size=22).map("".join),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([(None, None), (20, None), (20, 7), (9, 3), (1, 1)]),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
    st.sampled_from(sorted(MODELS)),
)
def test_contigs_are_what_the_model_says_window_by_window(
    texts: list[str],
    window: tuple[int | None, int | None],
    rc: bool,
    batch_size: int | None,
    name: str,
) -> None:
    model = MODELS[name]
    contigs = [contig(text, str(i)) for i, text in enumerate(texts)]
    how = {"window": window[0], "stride": window[1], "rc": rc, "batch_size": batch_size}
    answers = classified(model, contigs, **how)
    assert [answer.record.id for answer in answers] == [one.name for one in contigs]
    width = window[0] or 32
    for one, answer in zip(contigs, answers, strict=True):
        kept, n_bases, p_S = by_hand(model, one.sequence, width, window[1] or width, rc=rc)
        assert (list(answer.windows), answer.n_bases) == (kept, n_bases)
        if p_S is None:
            assert (answer.record.status, answer.logits) == ("N_CONTENT", None)
            continue
        assert answer.record.status == "OK"
        np.testing.assert_allclose(shares(answer.logits), p_S, atol=1e-4)
        for (start, end), shown_S in zip(kept, shares(answer.window_logits), strict=True):
            alone = np.exp(log_p(model, one.sequence[start:end], rc=rc))
            np.testing.assert_allclose(shown_S, alone / alone.sum(), atol=1e-4)


def test_the_head_says_how_long_windows_are() -> None:
    model = with_head(HeadConfig("multiclass", 3, THREE.labels, window=10))
    (answer,) = classified(model, [contig("ACGT" * 6)])
    assert list(answer.windows) == [(0, 10), (7, 17), (14, 24)]
    with pytest.raises(UsageError, match="a stride of 11 skips bases between windows of 10"):
        classified(model, [contig("A")], stride=11)
    with pytest.raises(UsageError, match="the model takes at most 32 bases, not 35"):
        classified(model, [contig("A")], window=35)


def test_what_cannot_be_told_keeps_its_place() -> None:
    texts = ["", "ACGTA", "ACGTAC", "N" * 70, "N" * 39 + "ACGTACGT", "NNNACG", "NNNNAC"]
    answers = classified(MODELS["three"], [contig(text) for text in texts], min_length=6)
    assert [answer.record.status for answer in answers] == [
        *("EMPTY", "TOO_SHORT", "OK", "N_CONTENT", "N_CONTENT", "OK", "N_CONTENT")
    ]
    assert [answer.n_bases for answer in answers] == [0, 0, 6, 0, 0, 6, 0]
    assert classified(MODELS["three"], []) == []
    assert [a.record.status for a in classified(MODELS["three"], [contig("")] * 3)] == ["EMPTY"] * 3


def test_contigs_without_windows_are_not_hoarded() -> None:
    model, read = MODELS["three"], 0

    def contigs() -> Iterator[FastaRecord]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield contig(random_dna(40, read) if read % 10 == 1 else "", str(read))

    options = species_options(THREE, rc=False)
    answers = classify(model, contigs(), options, min_length=1, max_bytes=80)
    assert next(answers)[0].name == "1"
    assert read < 25
    rest = list(answers)
    assert [one.name for one, _ in rest] == [str(number) for number in range(2, 101)]
    for one, answer in rest[9::10]:
        (alone,) = classified(model, [one])
        np.testing.assert_allclose(answer.logits, alone.logits, atol=1e-3)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (None, "m: the model has no head, so it knows no species; train one with `hyena classify-species tr"),
        (HeadConfig("regression", 1), "m: the model's head is for regression, and not for one of several"),
        (HeadConfig("multilabel", 3), "the model's head is for multilabel"),
        (HeadConfig("binary", 2, level="nucleotide"), "the model predicts each base by itself"),
        (HeadConfig("binary", 2), "the 2 classes of the model have no names, so they are no species"),
    ],
)
def test_a_model_that_knows_no_species(head: HeadConfig | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        species_head(with_head(head) if head else tiny_model(), "m")


@pytest.mark.parametrize("lead", [b"", b"\xef\xbb\xbf", b"\n \r\n"])
@pytest.mark.parametrize("last", [">e\nAC", ">e\nAC\n\n", ">e\r\n", ">e"])
def test_records_keep_their_bytes(tmp_path: Path, lead: bytes, last: str) -> None:
    records = [b">a one\r\nACGT\r\nac\r\n", b">b\n\n\nNNNN \n", b">c \n", b">d\r\r\nGGU\r\n", last.encode()]
    path = write_bytes(tmp_path / "c.fa.gz", lead + b"".join(records), "gzip")
    with open_binary(path) as stream:
        contigs, about = open_contigs(stream, path, keep_text=True)
        found = list(contigs)
    assert about == {}
    assert [one.text for one in found] == records
    assert [one.name for one in found] == list("abcde")
    assert [one.sequence for one in found[:4]] == [b"ACGTAC", b"NNNN", b"", b"GGT"]
    with open_binary(path) as stream:
        contigs, about = open_contigs(stream, path, Shard(2, 2))
        assert [(one.name, one.text) for one in contigs] == [("c", b""), ("d", b""), ("e", b"")]
    assert (about["shard"]["number"], about["shard"]["records"]) == (2, 5)


def answer(p: list[float] | None, status: str = "OK") -> Predicted:
    if p is None:
        return Predicted(SequenceRecord("x", "x", 0, 8, status=status), 0, None)
    record = SequenceRecord.of_sequence("x", b"ACGTACGT")
    logits, by_window = np.log(np.array(p) + 1e-300), np.log(np.array([p, p[::-1]]) + 1e-300)
    return Predicted(record, 8, logits, [(0, 5), (3, 8)], by_window)


def test_rows_name_the_likeliest_species_or_none() -> None:
    table = SpeciesTable(THREE, threshold=0.5, top=2)
    names = [column.name for column in table.columns()]
    assert names == [
        *("id", "length", "n_windows", "n_bases", "status", "prediction", "probability", "top"),
        *("p_human", "p_mouse", "p_E. coli"),
    ]
    for p, prediction, top in (
        ([0.2, 0.5, 0.3], "mouse", "mouse:0.5,E. coli:0.3"),
        ([0.4, 0.4, 0.2], "unknown", "human:0.4,mouse:0.4"),
    ):
        row = table.rows(answer(p))
        assert list(row) == names
        assert [row[name] for name in names[:8]] == [
            *(["x"], [8], [2], [8], ["OK"], [prediction], [pytest.approx(max(p))], [top])
        ]
        assert [row[name][0] for name in names[8:]] == pytest.approx(p)
    row = table.rows(answer(None, "TOO_SHORT"))
    assert [row[name] for name in names[1:6]] == [[8], [0], [0], ["TOO_SHORT"], [""]]
    assert row["top"] == [""]
    assert np.isnan([row[name][0] for name in ("probability", *names[8:])]).all()
    assert "top" not in SpeciesTable(THREE).rows(answer([1.0, 0.0, 0.0]))


def test_windows_are_rows_of_their_own() -> None:
    table = SpeciesTable(THREE, threshold=0.6)
    rows = table.window_rows(answer([0.7, 0.2, 0.1]))
    assert list(rows) == [column.name for column in table.window_columns()]
    assert (rows["id"], rows["start"].tolist(), rows["end"].tolist()) == (["x", "x"], [0, 3], [5, 8])
    assert rows["prediction"] == ["human", "E. coli"]
    np.testing.assert_allclose(rows["p_human"], [0.7, 0.1])


def test_files_are_called_after_species_and_all_differ() -> None:
    names = ["Unknown", "unknown", "../x", "x", "X", "..", "ö/ä", "s" * 300, "s" * 301, "-rf", "E. coli"]
    found = file_names(names)
    assert found[""] == "unclassified.fa"
    assert found["unknown"] == "unknown.fa"
    assert found["Unknown"] == "Unknown_2.fa"
    assert found["ö/ä"] == "ö_ä.fa"
    assert len({name.casefold() for name in found.values()}) == len(found) == len({"", *names})
    for name in found.values():
        assert Path(name).name == name
        assert not name.startswith((".", "-"))
        assert len(name.encode()) < 255


def test_a_split_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "split"
    with open_split(target, ["a"], force=False) as write:
        for prediction, text in (("a", b">1\n"), ("", b">2\n"), ("unknown", b">3\n"), ("a", b">4\nAC")):
            write(prediction, text)
        assert not target.exists()
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        "a.fa": b">1\n>4\nAC",
        "unclassified.fa": b">2\n",
        "unknown.fa": b">3\n",
    }

    def fails() -> None:
        with open_split(target, ["a"], force=True) as write:
            write("a", b">5\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert (target / "a.fa").read_bytes() == b">1\n>4\nAC"
    with pytest.raises(UserError, match="split: the directory is not empty; add --force"):
        open_split(target, ["a"], force=False).__enter__()
    with open_split(target, ["a"], force=True) as write:
        write("unknown", b">6\n")
    assert [path.name for path in target.iterdir()] == ["unknown.fa"]
    (target / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds 'notes.txt', which is no .fa file, so --force leaves it"):
        open_split(target, ["a"], force=True).__enter__()
    with pytest.raises(UserError, match=r"unknown.fa: is a file, and a directory is needed"):
        open_split(target / "unknown.fa", ["a"], force=True).__enter__()
    assert [path.name for path in target.parent.iterdir()] == ["split"]


def test_a_contig_does_not_depend_on_those_around_it() -> None:
    rng = random.Random(3)
    contigs = [contig(random_dna(rng.randint(1, 90), i), str(i)) for i in range(12)]
    alone = {one.name: classified(MODELS["three"], [one])[0].logits for one in contigs}
    rng.shuffle(contigs)
    for answer in classified(MODELS["three"], contigs, batch_size=5):
        np.testing.assert_allclose(answer.logits, alone[answer.record.id], atol=1e-3)


@settings(max_examples=200)
@given(st.integers(1, 200), st.integers(1, 40), st.data(), st.booleans())
def test_windows_cover_a_sequence_alike_from_both_ends(
    length: int, width: int, data: st.DataObject, circular: bool
) -> None:
    stride = data.draw(st.integers(1, width))
    spans = even_windows(length, width, stride, circular=circular)
    assert {at % length for start, end in spans for at in range(start, end)} == set(range(length))
    widths = (width, max(1, width - 1), length)
    assert all(0 <= start < length and end - start in widths for start, end in spans)
    assert circular or spans[-1][1] == length
    windows = {frozenset(at % length for at in range(*span)) for span in spans}
    assert windows == {frozenset(length - 1 - at for at in window) for window in windows}
    steps = [after[0] - before[0] for before, after in itertools.pairwise(spans)]
    assert all(step % length <= stride for step in steps)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("bases", [17, 32, 33, 95, 96, 100, 161])
def test_the_strand_in_which_a_contig_is_written_makes_no_difference(name: str, bases: int) -> None:
    text = random_dna(bases, bases) + "N" * 20
    other = reverse_complement(text.encode()).decode()
    for how in ({}, {"window": 20, "stride": 7}, {"window": 20, "circles": "c"}):
        one, two = classified(MODELS[name], [contig(text), contig(other)], rc=True, **how)
        np.testing.assert_allclose(shares(one.logits), shares(two.logits), atol=1e-5)


def test_windows_of_a_circle_go_on_across_its_end() -> None:
    model, bases = MODELS["three"], (random_dna(70, 4) + "N" * 5).encode()
    (circle,) = classified(model, [FastaRecord("c", "", bases)], stride=20, circles="cd")
    assert list(circle.windows) == even_windows(75, 32, 20, circular=True)
    assert any(end > 75 for _, end in circle.windows)
    logits = [log_p(model, (bases * 2)[start:end], rc=False) for start, end in circle.windows]
    np.testing.assert_allclose(shares(circle.logits), shares(np.mean(logits, axis=0)), atol=1e-4)
    assert circle.n_bases == 75
    (half,) = classified(model, [contig("ACGT" * 10 + "N" * 60)], stride=16, circles="c")
    read = {at % 100 for start, end in half.windows for at in range(start, end)}
    assert half.n_bases == len(read) < 100


def test_predict_answers_for_a_species_run_as_its_own_verb() -> None:
    head = replace(THREE, average_windows=True, rc=True)
    model, bases = with_head(head), random_dna(150, 8).encode()
    record = SequenceRecord.of_sequence("c", bases)
    (answer,) = predict(model, [record], prediction_options(head, rc=head.rc))
    (by_verb,) = classified(model, [FastaRecord("c", "", bases)], rc=True)
    np.testing.assert_allclose(answer.logits, by_verb.logits, rtol=1e-5)  # batches differ


def test_a_bad_contig_costs_no_other(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.fa", b">a\nACGTACGT\n>b\nAC*T\n>c\n>d\nACGT\n")
    with open_binary(path) as stream:
        contigs, _ = open_contigs(stream, path)
        assert [contig.status for contig in contigs] == ["OK", "BAD_LETTER", "EMPTY", "OK"]
