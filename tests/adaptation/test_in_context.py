"""In-context learning: prompts, what is learnt of them, and runs."""

import csv
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hyenacli.adaptation.evaluation import label_share
from hyenacli.adaptation.examples import Criterion, Epochs
from hyenacli.adaptation.in_context import PromptExamples
from hyenacli.adaptation.labels import LabelScheme
from hyenacli.app import app
from hyenacli.errors import UsageError, UserError
from hyenacli.finetune.command import finetune
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.in_context import Shots, max_sequence_bases
from hyenacli.readers.tables import LabelledRecord
from hyenadna import DemonstrationsConfig, HyenaDNA, Tokenizer, load_model
from hyenadna.tokenizer import PAD
from tests.builders import random_dna
from tests.finetunes import (
    base_model,
    metrics,
    predictions,
    sequences,
    settings,
    value,
    write_table,
)
from tests.toys import tiny_model

pytestmark = pytest.mark.usefixtures("without_figures")

CLASSES = [0, 1, 0, 1, 1, 0, 1, 0, 1]
DNA = [random_dna(5 + i, seed=i) for i in range(len(CLASSES))]
CONFIG = DemonstrationsConfig(task="binary", labels=("no", "yes"), letters="AN", shots=(), max_length=10)


def examples(shots: int = 2, most: int = 10, *, rc_augment: bool = False) -> PromptExamples:
    records = [LabelledRecord(str(i), bases.encode(), None) for i, bases in enumerate(DNA)]
    targets = [np.array(k, np.int64) for k in CLASSES]
    return PromptExamples(
        records,
        targets,
        replace(CONFIG, max_length=most),
        shots=shots,
        seed=0,
        rc_augment=rc_augment,
        order=partial(Epochs, batch_size=2, epochs=1, seed=0, rc_augment=rc_augment),
    )


def texts(prompts: PromptExamples, numbers: range, *, mirrored: bool = False, length: int = 90) -> list[str]:
    places = np.arange(len(numbers))
    host = prompts.batch(numbers, places, np.full(len(numbers), mirrored), length)
    assert host.inputs.shape == (len(numbers), length)
    assert host.targets.tolist() == CLASSES[: len(numbers)]
    return [Tokenizer().decode(row.astype(np.int64)).replace("[PAD]", "") for row in host.inputs]


def test_shots_are_so_many_of_each_class_and_never_the_query() -> None:
    shots = Shots(CLASSES, 2, 3, seed=1)
    seen = set()
    for number in range(200):
        place = number % len(CLASSES)
        chosen, coins = shots.fresh(number, place)
        assert place not in chosen
        assert len(set(chosen)) == len(coins) == 6
        assert Counter(CLASSES[i] for i in chosen) == {0: 3, 1: 3}
        seen.add((place, tuple(chosen)))
    assert len(seen) > 190
    first = [CLASSES[shots.fresh(number, 0)[0][0]] for number in range(200)]
    assert 60 < sum(first) < 140  # classes are shuffled among each other


def test_shots_are_a_function_of_seed_and_number() -> None:
    one, same, other = Shots(CLASSES, 2, 2, 1), Shots(CLASSES, 2, 2, 1), Shots(CLASSES, 2, 2, 2)
    assert one.fresh(7, 0) == same.fresh(7, 0)
    assert one.fixed() == same.fixed()
    assert [one.fresh(i, 0) for i in range(20)] != [other.fresh(i, 0) for i in range(20)]
    assert one.fixed() != other.fixed()
    assert Shots(CLASSES, 2, 0, 1).fresh(3, 0) == ([], [])


def test_a_prompt_is_demonstrations_and_the_sequence() -> None:
    prompts = examples()
    class_of = {bases[: len(bases)]: k for bases, k in zip(DNA, CLASSES, strict=True)}
    class_of |= {bases[(len(bases) - 10) // 2 :][:10]: class_of[bases] for bases in DNA if len(bases) > 10}
    for place, text in enumerate(texts(prompts, range(40, 49), length=90)):
        *shown, query, end = text.split("[SEP]")
        assert end == ""
        assert len(shown) == 2 * 4
        assert query in class_of
        assert class_of[query] == CLASSES[place]
        for bases, letter in zip(shown[::2], shown[1::2], strict=True):
            assert bases != query
            assert letter == "AN"[class_of[bases]]
    assert prompts.n_longer == sum(len(bases) > 10 for bases in DNA)


def test_the_stream_can_be_read_in_any_parts() -> None:
    prompts, places = examples(rc_augment=True), np.arange(6)
    turned = np.array([True, False] * 3)
    whole = prompts.batch(range(100, 106), places, turned, 90).inputs
    parts = [
        prompts.batch(range(100 + i, 103 + i), places[i : i + 3], turned[i : i + 3], 90).inputs
        for i in (0, 3)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_lengths_are_those_of_the_longest_prompts() -> None:
    prompts = examples(shots=1, most=100)
    longest = [max(len(bases) for bases, own in zip(DNA, CLASSES, strict=True) if own == k) for k in (0, 1)]
    assert prompts.lengths == [sum(longest) + 6 + len(bases) + 1 for bases in DNA]
    assert examples(shots=0, most=100).lengths == [len(bases) + 1 for bases in DNA]
    seen = [prompts.batch(range(n, n + 1), np.zeros(1, np.int64), np.zeros(1, bool), 90) for n in range(100)]
    assert max(int((host.inputs != PAD).sum()) for host in seen) == prompts.lengths[0]


def test_reverse_complements_are_of_the_query_and_by_a_coin_of_demonstrations() -> None:
    known = {bases: bases for bases in DNA} | {reverse_complement(b.encode()).decode(): b for b in DNA}
    plain = texts(examples(most=100), range(9), length=120)
    mirrored = texts(examples(most=100, rc_augment=True), range(9), mirrored=True, length=120)
    turned = []
    for one, other in zip(plain, mirrored, strict=True):
        assert other.split("[SEP]")[-2] == reverse_complement(one.split("[SEP]")[-2].encode()).decode()
        for bases, same in zip(one.split("[SEP]")[:-2:2], other.split("[SEP]")[:-2:2], strict=True):
            assert known[same] == bases
            turned.append(same != bases)
    assert 8 < sum(turned) < 28


def test_the_letter_is_learnt_among_all_rows_and_padding_changes_nothing() -> None:
    model, prompts = tiny_model(context=200), examples()
    tight = [prompts.batch(range(n, n + 1), np.array([n]), np.zeros(1, bool), 70) for n in range(3)]
    wide = prompts.batch(range(3), np.arange(3), np.zeros(3, bool), 120)
    outputs = prompts.outputs(model, torch.from_numpy(wide.inputs))
    assert outputs.shape == (3, 16)
    total = 0.0
    for row, host in enumerate(tight):
        ids = torch.from_numpy(host.inputs).long()
        logits = model.plain(ids[:, : int((ids != PAD).sum())]).logits[0, -1]
        a, n = 7, 11
        torch.testing.assert_close(outputs[row, :2], logits[[a, n]], rtol=0, atol=1e-4)
        total -= float(logits.detach().log_softmax(0)[[a, n][CLASSES[row]]])
    scheme = LabelScheme("binary", "sequence", ("no", "yes"))
    loss = Criterion(scheme, None, ()).loss(outputs, torch.from_numpy(wide.targets))
    assert loss.item() == pytest.approx(total, abs=1e-3)
    weighted = Criterion(scheme, np.array([2.0, 2.0], np.float32), ())
    assert weighted.loss(outputs, torch.from_numpy(wide.targets)).item() == pytest.approx(2 * total, abs=2e-3)


def test_room_is_shared_by_all_sequences_of_a_prompt() -> None:
    assert max_sequence_bases(1026, 4, None) == (1026 - 1 - 12) // 5 == 202
    assert 4 * (202 + 3) + 202 + 1 <= 1026 < 4 * (203 + 3) + 203 + 1
    assert max_sequence_bases(1026, 4, 101) == 101
    for given, longest in ((203, 1026), (None, 17)):
        with pytest.raises(UserError, match="fewer --shots"):
            max_sequence_bases(longest, 4, given)


def test_label_share_counts_zeros() -> None:
    assert label_share([np.array([0.0, -1.0]), np.array([-0.5, -1.0])]) == 0.5


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_model(tmp_path_factory.mktemp("base") / "model", l_max=302)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of A and T, and sequences of C and G."""
    kinds = (("AT", "poor"), ("CG", "rich"))
    rows = [(random_dna(20 + i % 20, i, kinds[i % 2][0]), kinds[i % 2][1]) for i in range(120)]
    return write_table(tmp_path_factory.mktemp("data") / "table.csv", rows)


@pytest.fixture(scope="module")
def run(base: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("icl") / "run"
    learnt = settings(table, base, folder, method="icl", epochs=8, batch_size=8, rc="mean")
    assert finetune(learnt).exit_code == 0
    return folder


def test_a_run_learns_the_letters(run: Path) -> None:
    said = metrics(run)
    assert value(run, "test", "accuracy") > 0.9
    assert said["splits"]["test"]["label_share"] > 0.9
    model = load_model(run)
    shots = model.config.demonstrations
    assert shots.rc
    assert [label for _, label in shots.shots].count("rich") == 2
    assert shots.max_length == (302 - 1 - 12) // 5
    with (run / "metrics.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream) if row["loss"]]
    assert losses[-1] < losses[0] / 3


def test_the_verb_predict_needs_only_the_run(run: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tsv"
    arguments = ["predict", str(table), "-m", str(run), "-o", str(out), "--device", "cpu", "-b", "3"]
    with pytest.raises(SystemExit, match="0"):
        app(arguments)
    with out.open() as stream:
        rows = list(csv.DictReader((line for line in stream if line[0] != "#"), delimiter="\t"))
    own = {row["id"]: row for row in predictions(run)}
    assert len(rows) == len(own) == 120
    for row in rows:
        assert float(row["p_rich"]) == pytest.approx(float(own[row["id"]]["p_rich"]), abs=1e-5)


def test_without_epochs_demonstrations_are_all_there_is(base: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    zero = settings(table, base, folder, method="icl", epochs=0, shots=1, seed=3)
    assert finetune(zero).exit_code == 0
    before, after = load_model(base), load_model(folder)
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    assert len(after.config.demonstrations.shots) == 2
    rows = predictions(folder)
    shown = {sequence for sequence, _ in after.config.demonstrations.shots}
    with table.open() as stream:
        place = {row["sequence"]: str(i) for i, row in enumerate(csv.DictReader(stream), start=1)}
    split = {row["id"]: row["split"] for row in rows}
    assert {split[place[sequence]] for sequence in shown} == {"train"}


def test_a_temperature_is_kept_beside_the_demonstrations(base: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert finetune(settings(table, base, folder, method="icl", epochs=0, calibrate=True)).exit_code == 0
    temperature = metrics(folder)["calibration"]["temperature"]
    assert temperature != 1
    assert load_model(folder).config.demonstrations.temperature == temperature


def test_a_model_with_demonstrations_can_be_fine_tuned_otherwise(
    run: Path, table: Path, tmp_path: Path
) -> None:
    for method in ("full", "lora"):
        folder = tmp_path / method
        assert finetune(settings(table, run, folder, method=method, epochs=1)).exit_code == 0
        model = load_model(folder)
        assert isinstance(model, HyenaDNA)
        assert model.config.demonstrations is None
        assert model.config.head is not None


def test_three_classes_have_the_letters_of_the_paper(base: Path, tmp_path: Path) -> None:
    rows = [(bases, "abc"[i % 3]) for i, (bases, _) in enumerate(sequences(60))]
    folder = tmp_path / "run"
    table = write_table(tmp_path / "three.csv", rows)
    assert finetune(settings(table, base, folder, method="icl", epochs=1)).exit_code == 0
    demonstrations = load_model(folder).config.demonstrations
    assert demonstrations.letters == "AGN"
    assert demonstrations.labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("labels", "changes", "error", "message"),
    [
        ([f"{i}.5" for i in range(40)], {}, UsageError, "--method icl.*regression.*--method full"),
        (["abcdef"[i % 6] for i in range(60)], {}, UsageError, "2 to 5 classes, not for 6"),
        (["01" * 15 for _ in range(20)], {"level": "nucleotide"}, UsageError, "bases"),
        (["ab"[i % 2] for i in range(20)], {"shots": 6}, UserError, "class 'a' has 6 .* need 7.*--shots"),
        (["ab"[i % 2] for i in range(40)], {"shots": 6, "max_length": 60}, UserError, "20 bases to each"),
    ],
)
def test_what_cannot_be_done_is_refused(
    labels: list[str],
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    base: Path,
    tmp_path: Path,
) -> None:
    rows = [(random_dna(30, seed=i), label) for i, label in enumerate(labels)]
    table = write_table(tmp_path / "table.csv", rows)
    with pytest.raises(error, match=message):
        finetune(settings(table, base, tmp_path / "run", method="icl", **changes))
    assert not (tmp_path / "run" / "checkpoints").exists()
