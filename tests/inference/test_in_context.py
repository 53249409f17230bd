"""A model with demonstrations says what whole passes over its prompts say, and keeps them with it."""

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference import in_context
from hyenacli.inference.embedding import embed
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.prediction import prediction_head
from hyenacli.readers.records import SequenceRecord
from hyenadna import (
    DemonstrationsConfig,
    HyenaDNA,
    ModelError,
    Tokenizer,
    convert,
    describe,
    load_model,
    model_sha256,
    save_model,
)
from hyenadna.config import HeadConfig
from hyenadna.engine.suffix import ReferencePass
from hyenadna.tokenizer import SEP
from tests.toys import predict_with, tiny_model

SHOTS = DemonstrationsConfig(
    task="multiclass",
    labels=("x", "y", "z"),
    letters="AGN",
    shots=(("ACGTNAC", "z"), ("GGG", "x"), ("TTACA", "y")),
    max_length=20,
)


def dna(length: int, seed: int = 0) -> bytes:
    return bytes(random.Random(seed).choices(b"ACGTN", k=length))


def stretch(bases: bytes, strand: str = ".") -> SequenceRecord:
    return SequenceRecord("r", "chr1", 100, 100 + len(bases), strand, bases=bases)


def with_shots(config: DemonstrationsConfig = SHOTS) -> HyenaDNA:
    model = tiny_model()
    model.set_demonstrations(config)
    return model


def next_token(model: HyenaDNA, bases: bytes) -> np.ndarray:
    """The logits of all 16 rows, by one pass over the whole prompt, which is written out by hand."""
    ids: list[int] = []
    for sequence, label in model.config.demonstrations.shots:
        letter = dict(zip(SHOTS.labels, SHOTS.letters, strict=True))[label]
        ids += [*Tokenizer().encode(sequence), SEP, *Tokenizer().encode(letter), SEP]
    ids += [*Tokenizer().encode(bases), SEP]
    with torch.inference_mode():
        return model.plain(torch.tensor([[int(i) for i in ids]])).logits[0, -1].double().numpy()


def answers(
    model: HyenaDNA, stretches: list[SequenceRecord], *, rc: bool = False, **how: int
) -> list[np.ndarray]:
    said = list(predict_with(model, stretches, rc=rc, **how))
    assert [one.record for one in said] == stretches
    return [one.logits for one in said]


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
@pytest.mark.parametrize(("shots", "rc"), list(itertools.product([SHOTS.shots, ()], [False, True])))
def test_answers_are_those_of_whole_passes(
    dtype: torch.dtype, atol: float, shots: tuple[tuple[str, str], ...], rc: bool
) -> None:
    model = with_shots(replace(SHOTS, shots=shots)).to(dtype)
    sequences = [dna(length, length) for length in (1, 20, 7, 13)]
    for bases, got in zip(sequences, answers(model, [*map(stretch, sequences)], rc=rc), strict=True):
        wanted = next_token(model, bases)
        if rc:
            wanted = (wanted + next_token(model, reverse_complement(bases))) / 2
        a, g, n = 7, 9, 11
        np.testing.assert_allclose(got, (wanted - wanted.max())[[a, g, n]], rtol=0, atol=atol)


def test_what_is_too_long_is_cut_to_its_middle() -> None:
    model, bases = with_shots(), dna(31)
    [cut] = predict_with(model, [stretch(bases)], rc=False)
    assert cut.n_bases == 20
    np.testing.assert_allclose(cut.logits, answers(model, [stretch(bases[5:25])])[0], atol=1e-6)
    both = answers(model, [stretch(bases)], rc=True)[0]
    np.testing.assert_allclose(both, answers(model, [stretch(bases[5:25])], rc=True)[0], atol=1e-6)


def test_answers_do_not_depend_on_batches_and_come_in_order() -> None:
    model = with_shots()
    stretches = [stretch(dna(length, i)) for i, length in enumerate((3, 20, 1, 12, 12, 19))]
    lost = SequenceRecord("e", "e", 0, 0, status="EMPTY")
    whole = answers(model, [lost, *stretches[:3], lost, lost, *stretches[3:], lost], rc=True)
    assert [i for i, logits in enumerate(whole) if logits is None] == [0, 4, 5, 9]
    alone = [answers(model, [one], rc=True)[0] for one in stretches]
    np.testing.assert_allclose([one for one in whole if one is not None], alone, rtol=0, atol=1e-4)
    single = answers(model, stretches, rc=True, batch_size=1)
    np.testing.assert_allclose(single, alone, rtol=0, atol=1e-4)
    assert answers(model, [lost]) == [None]


def test_demonstrations_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def counted(model: HyenaDNA, ids_BL: torch.Tensor, first: int) -> ReferencePass:
        passes.append(tuple(ids_BL.shape))
        return ReferencePass(model, ids_BL, first)

    monkeypatch.setattr(in_context, "ReferencePass", counted)
    answers(with_shots(), [stretch(dna(9, i)) for i in range(40)], rc=True, batch_size=2)
    assert passes == [(1, 7 + 3 + 5 + 9 + 10)]


def test_a_zero_says_that_the_likeliest_token_is_that_letter() -> None:
    model = with_shots()
    sequences = [dna(10, i) for i in range(30)]
    likeliest = [int(next_token(model, bases).argmax()) for bases in sequences]
    letters = [7, 9, 11]
    for token, got in zip(likeliest, answers(model, [*map(stretch, sequences)]), strict=True):
        assert (got <= 0).all()
        assert [letters[i] for i in np.flatnonzero(got == 0)] == [token] * (token in letters)
    assert 0 < sum(token in letters for token in likeliest) < len(likeliest)


def test_a_temperature_divides() -> None:
    bases = [stretch(dna(10))]
    [plain], [warm] = (
        answers(with_shots(), bases),
        answers(with_shots(replace(SHOTS, temperature=4.0)), bases),
    )
    np.testing.assert_allclose(warm, plain / 4)


def test_the_strand_of_a_region_counts_where_it_is_asked_for() -> None:
    model, bases = with_shots(), dna(11)
    recipe = EmbeddingOptions(stranded=True)
    said = in_context.answer_in_context(model, [stretch(bases, "-")], recipe)
    wanted = answers(model, [stretch(reverse_complement(bases))])[0]
    np.testing.assert_allclose([logits for _, _, logits in said], [wanted])


def test_windows_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--window.*no windows.*20 bases"):
        predict_with(with_shots(), [], rc=False, window=10)


def test_values_that_are_not_finite_are_an_error() -> None:
    model = with_shots()
    with torch.no_grad():
        model.backbone.ln_f.weight.fill_(torch.inf)
    with pytest.raises(UserError, match="not finite"):
        answers(model, [stretch(b"ACGT")])


def test_demonstrations_are_kept_with_the_model(tmp_path: Path) -> None:
    model, bare = with_shots(replace(SHOTS, rc=True, temperature=2.5)), tiny_model()
    save_model(model, tmp_path / "shown")
    save_model(bare, tmp_path / "bare")
    again = load_model(tmp_path / "shown")
    assert again.config == model.config
    assert prediction_head(again) == HeadConfig("multiclass", 3, ("x", "y", "z"), pool="last", rc=True)
    assert model_sha256(again) == model_sha256(model) != model_sha256(bare)
    assert "A = x, G = y, N = z" in (tmp_path / "shown" / "README.md").read_text()
    assert "demonstrations" not in json.loads((tmp_path / "bare" / "config.json").read_text())
    assert describe(tmp_path / "shown").to_dict()["config"]["demonstrations"]["shots"] == 3
    convert(tmp_path / "shown", tmp_path / "native", "native")
    assert load_model(tmp_path / "native").config == model.config
    for checkpoint_format in ("hf", "official", "multimolecule"):
        with pytest.raises(ModelError, match=r"cannot hold.*demonstrations"):
            convert(tmp_path / "shown", tmp_path / checkpoint_format, checkpoint_format)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"letters": "AC"}, "do not name the classes"),
        ({"letters": "AAG"}, "do not name the classes"),
        ({"letters": "AGQ"}, "do not name the classes"),
        ({"task": "regression"}, "regression"),
        ({"shots": [["ACGT", "w"]]}, "unknown class 'w'"),
        ({"shots": [["acgt", "x"]]}, "other letters"),
        ({"shots": [["ACGT"]]}, "shots = "),
        ({"max_length": 42}, "exceed l_max"),
        ({"max_length": 0}, "at least 1"),
        ({"temperature": 0}, "positive"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_config_json_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    save_model(with_shots(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    raw = json.loads(path.read_text())
    del raw["sha256"]
    raw["demonstrations"] |= changes
    path.write_text(json.dumps(raw))
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "model")


def test_a_head_and_demonstrations_take_each_others_place() -> None:
    model = with_shots()
    model.set_head(HeadConfig("binary", 2))
    assert model.config.demonstrations is None
    model.set_demonstrations(SHOTS)
    assert model.config.head is None
    assert model.head is None
    assert not [name for name in model.state_dict() if name.startswith("head.")]


def test_other_verbs_see_the_language_model() -> None:
    stretches = [stretch(dna(length, length)) for length in (5, 80)]
    shown, bare = (
        list(embed(model, stretches, EmbeddingOptions())) for model in (with_shots(), tiny_model())
    )
    for one, other in zip(shown, bare, strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)
