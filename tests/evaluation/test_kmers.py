"""The k-mer yardstick: counts by hand, fits against scikit-learn, and real data."""

import csv
import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hyenacli.evaluation.kmers import PARTS, TRIED, KmerFeatures, WindowFeatures, fit_kmers, n_words
from hyenacli.evaluation.metrics import measure
from hyenacli.genome.dna import normalise, reverse_complement
from hyenadna.config import Task


def sequences(n: int, seed: int, length: int = 60) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGT"), length)).encode() for _ in range(n)]


def gc(seqs: list[bytes]) -> np.ndarray:
    return np.array([(s.count(b"G") + s.count(b"C")) / len(s) for s in seqs])


def root_variance(features_NF: np.ndarray) -> float:
    """The one scale of all features."""
    return float(np.sqrt(features_NF.var(0).mean()))


def test_windows_hold_the_kmer_at_each_offset_around_a_base() -> None:
    features, texts = WindowFeatures(k=2, radius=3), [b"ACGTTNG", b"C", b"", b"GATTACA"]
    windows = features.windows(texts)
    assert windows[:2] == [b"NNNACGT", b"NNACGTT"]
    assert features.windows(texts, np.array([8, 7])) == [b"NNNGATT", b"NNNCNNN"]
    expected = np.zeros((15, 6, 4, 4))
    for row, window in enumerate(windows):
        for offset in range(6):
            if b"N" not in (word := window[offset : offset + 2]):
                expected[row, offset, b"ACGT".index(word[0]), b"ACGT".index(word[1])] = 1
    np.testing.assert_array_equal(features.of(windows), expected.reshape(15, features.size))


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_features_are_root_frequencies_of_words(k: int) -> None:
    text = b"ACGTTNGCATGCANNACGTACGATCCGA"
    words: Counter[bytes] = Counter()
    for i in range(len(text) - k + 1):
        word = text[i : i + k]
        if b"N" not in word:
            words[min(word, reverse_complement(word))] += 1
    (row_F,) = KmerFeatures((k,)).of([text])
    assert len(row_F) == n_words(k)
    expected = sorted(np.sqrt(count / words.total()) for count in words.values())
    assert sorted(row_F[row_F > 0]) == pytest.approx(expected)


def test_canonical_words_do_not_know_the_strand() -> None:
    seqs = sequences(5, 0)
    turned = [reverse_complement(s) for s in seqs]
    both = [KmerFeatures((4,)).of(s) for s in (seqs, turned)]
    assert both[0] == pytest.approx(both[1])


def test_parts_are_counted_by_where_a_word_begins() -> None:
    text = b"AACCGGTTACGTNACGGATTACA"
    row_F = KmerFeatures((2,), (2,)).of([text])[0]
    assert row_F[:10] == pytest.approx(KmerFeatures((2,)).of([text])[0])
    for part in range(PARTS):
        starts = [i for i in range(len(text) - 1) if i * PARTS // (len(text) - 1) == part]
        words = Counter(text[i : i + 2] for i in starts if b"N" not in text[i : i + 2])
        canonical: Counter[bytes] = Counter()
        for word, count in words.items():
            canonical[min(word, reverse_complement(word))] += count
        expected = sorted(np.sqrt(count / canonical.total()) for count in canonical.values())
        cells = row_F[10 * (part + 1) : 10 * (part + 2)]
        assert sorted(cells[cells > 0]) == pytest.approx(expected)
    symmetric = KmerFeatures((2,), (2,), symmetric=True)
    even = b"AACCGGTTACGTCACGGATT" + b"G"  # 20 words: parts are the same from both ends
    assert symmetric.of([even]) == pytest.approx(symmetric.of([reverse_complement(even)]), abs=1e-6)


def test_many_sequences_are_counted_as_single_ones() -> None:
    seqs = [*sequences(7, 1), b"", b"AC", *sequences(3, 2, 33)]
    together = TRIED.of(seqs)
    assert together == pytest.approx(np.concatenate([TRIED.of([s]) for s in seqs]))


def test_fifths_are_taken_where_the_position_matters() -> None:
    """The same words in all sequences; the class is the end that they lie at."""
    rng = np.random.default_rng(0)

    def split(n: int) -> tuple[list[bytes], np.ndarray]:
        labels = rng.integers(0, 2, n)
        halves = [(["AT", "GC"], ["GC", "AT"])[label] for label in labels]
        texts = ["".join("".join(rng.choice(list(h), 30)) for h in pair) for pair in halves]
        return [text.encode() for text in texts], labels

    train, valid, test = split(100), split(60), split(60)
    fit = fit_kmers(*train, "binary", valid=valid)
    assert fit.features.part_lengths == (3, 4)
    assert measure("binary", test[1], fit.predict(test[0]))["auroc"] > 0.99
    longer = [*train[0][:-1], train[0][-1] + b"A"]
    assert fit_kmers(longer, train[1], "binary", valid=valid).features.part_lengths == ()


@pytest.mark.parametrize("empty", [b"", b"AC", b"NNNNNN"])
def test_a_sequence_without_words_has_none(empty: bytes) -> None:
    assert not KmerFeatures((3,)).of([empty]).any()


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 3)])
def test_the_fit_is_that_of_scikit_learn(task: Task, classes: int) -> None:
    seqs, held = sequences(200, 1), sequences(50, 2)
    cuts = np.quantile(gc(seqs), np.arange(1, classes) / classes)
    y = np.digitize(gc(seqs), cuts)
    valid = held, np.digitize(gc(held), cuts)
    fit = fit_kmers(seqs, y, task, valid=valid, features=KmerFeatures((2,)), penalties=(0.03,))
    features = KmerFeatures((2,)).of(seqs)
    scaled = [(KmerFeatures((2,)).of(s) - features.mean(0)) / root_variance(features) for s in (seqs, held)]
    # two softmax outputs share the penalty that one logit bears alone
    strength = 0.03 / 2 if classes == 2 else 0.03
    peer = LogisticRegression(C=1 / (strength * 200), tol=1e-10, max_iter=5000).fit(scaled[0], y)
    assert fit.predict(held) == pytest.approx(peer.predict_proba(scaled[1]), abs=1e-2)


def test_numbers_are_fitted_as_ridge_regression() -> None:
    seqs, held = sequences(120, 3), sequences(40, 4)
    y = 1e4 + 100 * gc(seqs) + np.random.default_rng(0).normal(0, 5, 120)
    valid = held, 1e4 + 100 * gc(held)
    fit = fit_kmers(seqs, y, "regression", valid=valid, features=KmerFeatures((2,)), penalties=(0.1,))
    features = KmerFeatures((2,)).of(seqs)
    x, new = ((KmerFeatures((2,)).of(s) - features.mean(0)) / root_variance(features) for s in (seqs, held))
    weights = np.linalg.solve(x.T @ x / 120 + 0.1 * np.eye(10), x.T @ (y - y.mean()) / 120)
    assert fit.predict(held)[:, 0] == pytest.approx(y.mean() + new @ weights, abs=0.02)


def test_what_words_tell_is_learnt_and_noise_is_not() -> None:
    seqs, held, test = (sequences(n, seed) for n, seed in ((300, 5), (100, 6), (200, 7)))
    labels = [
        np.array([s.count(b"ACG") + s.count(b"CGT") for s in split]) >= 2 for split in (seqs, held, test)
    ]
    fit = fit_kmers(seqs, labels[0], "binary", valid=(held, labels[1]), features=KmerFeatures((2, 3)))
    assert measure("binary", labels[2], fit.predict(test))["auroc"] > 0.97
    rng = np.random.default_rng(0)
    noise = fit_kmers(
        seqs,
        rng.integers(0, 2, 300),
        "binary",
        valid=(held, rng.integers(0, 2, 100)),
        features=KmerFeatures((3,)),
    )
    assert noise.penalty >= 1
    assert noise.valid_loss == pytest.approx(np.log(2), abs=0.02)


def test_a_class_that_was_never_seen_is_hardly_possible() -> None:
    seqs, held = sequences(100, 1), sequences(50, 2)
    labels = [(gc(split) > 0.5).astype(int) for split in (seqs, held)]
    fit = fit_kmers(
        seqs, labels[0], "multiclass", valid=(held, labels[1]), n_classes=3, features=KmerFeatures((2,))
    )
    assert fit.predict(held).shape == (50, 3)
    assert fit.predict(held)[:, 2].max() < 0.01


def test_columns_with_missing_labels() -> None:
    seqs, held = sequences(200, 8), sequences(60, 9)

    def columns(split: list[bytes]) -> np.ndarray:
        return np.stack([gc(split) > 0.5, [s.count(b"TA") > 3 for s in split]], axis=1).astype(float)

    y = columns(seqs)
    y[:20, 0], y[20:50, 1] = np.nan, -100
    fit = fit_kmers(seqs, y, "multilabel", valid=(held, columns(held)), features=KmerFeatures((2,)))
    assert measure("multilabel", columns(held), fit.predict(held))["auroc"] > 0.95
    numbers = np.stack([gc(seqs), -gc(seqs)], axis=1)
    numbers[:9, 1] = np.nan
    fit = fit_kmers(seqs, numbers, "regression", valid=(seqs, numbers), features=KmerFeatures((2,)))
    assert measure("regression", numbers, fit.predict(seqs))["r2"] > 0.85


def test_missing_classes_change_nothing() -> None:
    seqs, held = sequences(80, 10), sequences(30, 11)
    y, v = gc(seqs) > 0.5, gc(held) > 0.5
    alone = fit_kmers(seqs, y, "binary", valid=(held, v), features=KmerFeatures((2,)))
    more = fit_kmers(
        [*seqs, *seqs[:9]], [*y, *[-100] * 9], "binary", valid=(held, v), features=KmerFeatures((2,))
    )
    assert alone.features == more.features
    assert measure("binary", v, more.predict(held))["auroc"] > 0.9


def test_features_that_do_not_fit_are_left_out() -> None:
    seqs = sequences(80, 12)
    labels = [s.count(b"ACG") + s.count(b"CGT") >= 2 for s in seqs]
    for lengths, k in (((2, 3), 2), ((4,), 4)):
        fit = fit_kmers(
            seqs, labels, "binary", valid=(seqs, labels), features=KmerFeatures(lengths), max_features=80 * 20
        )
        assert fit.features.lengths == (k,)


def test_what_cannot_be_fitted() -> None:
    seqs = sequences(4, 0)
    for targets, message in (([0, 1], "2 targets"), ([-100] * 4, "no labels")):
        with pytest.raises(ValueError, match=message):
            fit_kmers(seqs, targets, "binary", valid=(seqs, [0, 1, 0, 1]))


def test_open_chromatin_of_the_genomic_benchmarks(shared: Path) -> None:
    splits = []
    for name in ("train", "test"):
        path = shared / "data" / "labelled" / f"gb_part_human_ocr_ensembl_{name}.csv.gz"
        with gzip.open(path, "rt") as stream:
            rows = list(csv.DictReader(stream))
        names = sorted({row["label"] for row in rows})
        splits.append(
            (
                [normalise(r["sequence"].encode()) for r in rows],
                np.array([names.index(r["label"]) for r in rows]),
            )
        )
    (seqs, y), (test, truth) = splits
    order = np.random.default_rng(0).permutation(len(seqs))
    train, held = ([seqs[i] for i in part] for part in (order[:1200], order[1200:]))
    fit = fit_kmers(
        train, y[order[:1200]], "binary", valid=(held, y[order[1200:]]), features=KmerFeatures((3, 4))
    )
    assert measure("binary", truth, fit.predict(test))["accuracy"] > 0.56
