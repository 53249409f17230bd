"""Training to tell species apart, from genomes to a run directory."""

import csv
import json
import random
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from hyenacli import api
from hyenacli.app import app
from hyenacli.distributed import Ranks
from hyenacli.errors import UserError
from hyenacli.evaluation.calibration import probabilities
from hyenacli.evaluation.joining import JointWeights
from hyenacli.evaluation.kmers import KmerModel
from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.embedding_options import even_windows
from hyenacli.inference.experts import Experts, join_predictions, load_experts
from hyenacli.readers.records import SequenceRecord
from hyenacli.readers.sequences import FastaRecord
from hyenacli.species import evaluate
from hyenacli.species.evaluate import AccuracyAtLength
from hyenacli.species.experts import held_out_pieces
from hyenacli.species.genomes import open_run_genomes
from hyenacli.species.predict import classify, species_head, species_options
from hyenacli.species.settings import SpeciesEvaluateSettings, SpeciesTrainSettings
from hyenacli.species.splits import split_run
from hyenacli.species.train import train_species
from hyenacli.species.windows import HeldOut, bases_of
from hyenadna import Tokenizer, load_model
from tests.builders import write_fasta
from tests.finetunes import base_model, value
from tests.toys import predict_with
from tests.warm import run_job

pytestmark = pytest.mark.usefixtures("without_figures")
TINY: dict[str, Any] = {
    "max_length": 64,
    "max_steps": 30,
    "global_batch_size": 12,
    "eval_windows": 12,
    "lr": 1e-2,
    "no_baseline": True,
    "experts": "none",
    "device": "cpu",
}
# Enough to tell the species below apart, and few enough to be fitted in no time.
BASELINE_WINDOWS = 100
# Shares of A, C, G and T.
KINDS = {"rich": (1, 3, 3, 1), "poor": (3, 1, 1, 3), "skewed": (9, 1, 9, 1)}


@pytest.fixture(scope="module")
def genomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A FASTA of three contigs for each kind."""
    folder, rng = tmp_path_factory.mktemp("genomes"), random.Random(3)
    return {
        name: write_fasta(
            folder / f"{name}.fa",
            [(f"{name}{i}", "".join(rng.choices("ACGT", weights, k=3_000))) for i in range(10)],
        )
        for name, weights in KINDS.items()
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_model(tmp_path_factory.mktemp("base") / "model")


def settings(genomes: dict[str, Path], base: Path, run: Path, **changes: Any) -> SpeciesTrainSettings:
    species = [f"{name}={path}" for name, path in genomes.items()]
    return SpeciesTrainSettings(species=species, model=str(base), output=run, **(TINY | changes))


@pytest.fixture(scope="module")
def run(genomes: dict[str, Path], base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("species") / "run"
    config = settings(genomes, base, folder, no_baseline=False, experts="auto", max_steps=45)
    result = train_species(config, BASELINE_WINDOWS)
    assert result.exit_code == 0
    return folder


def test_it_learns_and_leaves_everything(run: Path) -> None:
    assert value(run, "test", "accuracy") > 0.9
    said = json.loads((run / "metrics.json").read_text())
    assert said["labels"] == list(KINDS)
    assert said["splits"]["test"]["records"] == 36
    assert said["kmers_baseline"]["k"] == [3, 4, 5, 6]
    assert said["kmers_baseline"]["k_by_fifths"] == []  # windows of a genome begin anywhere
    assert said["markov_baseline"]["orders"] == [6]  # 8 has more contexts than these genomes have bases
    for beside in (said["network"], said["markov_baseline"]["splits"], said["kmers_baseline"]["splits"]):
        assert beside["test"]["metrics"]["accuracy"]["value"] > 0.8
    assert said["experts"]["joined"]
    losses = said["experts"]["losses"]
    assert set(losses) == {"network", "markov+kmers", "network+markov+kmers"}
    assert "+".join(said["experts"]["members"]) == min(losses, key=losses.get)
    assert "Markov models and k-mers joined are " in said["verdict"]["sentence"]
    assert said["calibration"]["valid_loss"][1] <= said["calibration"]["valid_loss"][0]
    [(length, pieces)] = said["experts"]["on_pieces"].items()  # no split has enough pieces of 1,024
    assert (length, pieces["pieces"]) == ("256", 33)
    assert set(pieces["losses"]) == {"network+markov+kmers", "markov+kmers", "markov", "kmers"}
    assert "+".join(pieces["members"]) == min(pieces["losses"], key=pieces["losses"].get)
    assert "split of rich" in (run / "report.html").read_text()
    assert "Long contigs" in (run / "report.html").read_text()


def test_what_is_held_out_is_a_bed(run: Path, genomes: dict[str, Path]) -> None:
    rows = [line.split("\t") for line in (run / "splits.bed").read_text().splitlines()]
    assert {row[3] for row in rows} == {"train", "valid", "test"}
    for name in genomes:
        mine = [row for row in rows if row[4] == name]
        assert sum(int(row[2]) - int(row[1]) for row in mine) == 30_000
        assert {row[0] for row in mine} == {f"{name}{i}" for i in range(10)}


def test_without_a_test_split(genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train_species(settings(genomes, base, folder, max_steps=2, test_fraction=0.0))
    assert list(json.loads((folder / "metrics.json").read_text())["splits"]) == ["valid"]
    done = CliRunner().invoke(app, ["classify-species", "evaluate", str(folder), "--device", "cpu"])
    assert done.exit_code == 1
    assert "the run has no test windows; choose another --split" in done.stderr
    with pytest.raises(UserError, match="nothing to choose the model by; raise --valid-fraction"):
        train_species(settings(genomes, base, tmp_path / "other", max_steps=2, valid_fraction=0.0))


def test_files_that_have_changed_are_not_judged_on(
    genomes: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    mine = {name: Path(shutil.copy(path, tmp_path / f"{name}.fa")) for name, path in genomes.items()}
    train_species(settings(mine, base, tmp_path / "run", max_steps=1))
    records = mine["rich"].read_text().split(">")[1:]
    mine["rich"].write_text("".join(f">{record}" for record in records[::-1]))
    done = CliRunner().invoke(app, ["classify-species", "evaluate", str(tmp_path / "run"), "--device", "cpu"])
    assert done.exit_code == 1
    assert "what is held out is not known" in done.stderr
    assert "rich.fa has other contents than rich.fa had" in done.stderr


@pytest.fixture(scope="module")
def held_out_by_name(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a YAML, whose validation contigs have 100 bases, in the folder of the YAML."""
    folder, rng = tmp_path_factory.mktemp("named"), random.Random(4)
    lines = []
    for name, weights in list(KINDS.items())[:2]:
        sizes = {"train": 3_000, "valid": 100, "test": 1_000, "other": 1_000}
        contigs = [(f"{one}{name}", "".join(rng.choices("ACGT", weights, k=k))) for one, k in sizes.items()]
        path = write_fasta(folder / f"{name}.fa", contigs)
        lines.append(f"{name}: {{fasta: {path}, valid: [valid{name}], test: [test{name}]}}\n")
    yaml = folder / "species.yaml"
    yaml.write_text("".join(lines))
    train_species(by_yaml(yaml, base))
    return folder / "run"


def by_yaml(yaml: Path, base: Path, **changes: Any) -> SpeciesTrainSettings:
    """Settings of a run beside a YAML."""
    run = yaml.parent / "run"
    return SpeciesTrainSettings(
        species_file=yaml, model=str(base), output=run, **(TINY | {"max_steps": 2} | changes)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("test: [test", "test: [other"),
        lambda text: "".join(sorted(text.splitlines(keepends=True))),  # another order, other labels
    ],
)
def test_species_that_have_changed_are_neither_judged_on_nor_trained_on(
    held_out_by_name: Path, base: Path, change: Any
) -> None:
    yaml = held_out_by_name.parent / "species.yaml"
    before = yaml.read_text()
    yaml.write_text(change(before))
    assert yaml.read_text() != before
    command = ["classify-species", "evaluate", str(held_out_by_name), "--device", "cpu"]
    done = CliRunner().invoke(app, command)
    with pytest.raises(UserError, match=r"put the YAML back|has other contents"):
        train_species(by_yaml(yaml, base, resume=True))
    yaml.write_text(before)
    assert done.exit_code == 1
    assert "train again" in done.stderr


def test_a_length_that_only_the_test_split_has_is_judged_without_kmers(held_out_by_name: Path) -> None:
    command = ["classify-species", "evaluate", str(held_out_by_name), "--lengths", "64,256"]
    done = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    assert "no baseline of 256 bases: a species has no such validation window" in done.stderr
    short, long = csv.DictReader(
        (line for line in done.stdout.splitlines() if not line.startswith("##")), delimiter="\t"
    )
    assert float(short["kmers_accuracy"]) > 0
    assert long["kmers_accuracy"] in ("", "nan", ".")
    assert int(long["windows"]) > 0


def test_all_species_are_held_out_or_none(held_out_by_name: Path, base: Path, tmp_path: Path) -> None:
    yaml = tmp_path / "species.yaml"
    rich, poor = (held_out_by_name.parent / f"{name}.fa" for name in ("rich", "poor"))
    yaml.write_text(f"rich: {{fasta: {rich}, valid: [validrich]}}\npoor: {poor}\n")
    what = "nothing of poor is held out for the valid split, which others have; name valid contigs of every"
    with pytest.raises(UserError, match=what):
        train_species(by_yaml(yaml, base, valid_fraction=0.0))
    assert not (tmp_path / "run").exists()


def test_what_splits_share_is_told_however_little(run: Path) -> None:
    said = json.loads((run / "metrics.json").read_text())["leakage"]
    assert said["contigs"] == []
    pairs = [(one["held"], one["seen"]) for one in said["shared_31_mers"]]
    kinds = [(split, held, seen) for split in ("valid", "test") for held in KINDS for seen in KINDS]
    assert pairs == [(f"{held} {split}", f"{seen} train") for split, held, seen in kinds]
    assert {one["share"] for one in said["shared_31_mers"]} == {0}
    assert "What held-out splits share with training splits" in (run / "report.html").read_text()


def test_a_name_may_have_a_slash(genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    mine = {"A/H1N1": genomes["rich"], "B": genomes["poor"]}
    run = tmp_path / "run"
    train_species(settings(mine, base, run, max_steps=2))
    command = ["classify-species", "evaluate", str(run), "--lengths", "64", "--no-baseline", "--windows", "4"]
    done = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    assert "recall_A/H1N1" in done.stdout
    assert "training has not ended" not in done.stderr
    (run / "metrics.json").unlink()
    assert "training has not ended" in CliRunner().invoke(app, [*command, "--device", "cpu"]).stderr


def test_what_cannot_be_trained_leaves_no_run(genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--length-warmup"):
        train_species(settings(genomes, base, tmp_path / "run", length_warmup="4096:2"))
    assert not (tmp_path / "run").exists()


def test_evaluation_is_of_one_process(run: Path) -> None:
    done = CliRunner().invoke(
        app, ["classify-species", "evaluate", str(run)], env={"RANK": "1", "WORLD_SIZE": "2"}
    )
    assert done.exit_code == 2
    assert "start it without torchrun" in done.stderr


def test_evaluation_replaces_no_genome(run: Path, genomes: dict[str, Path]) -> None:
    before = genomes["poor"].read_bytes()
    command = ["classify-species", "evaluate", str(run), "-o", str(genomes["poor"]), "-O", "tsv"]
    done = CliRunner().invoke(app, command)
    assert genomes["poor"].read_bytes() == before
    assert done.exit_code == 2, done.stderr
    assert "is an input of this very command" in done.stderr


def test_a_genome_that_has_gone_is_named(genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    mine = {name: Path(shutil.copy(path, tmp_path / f"{name}.fa")) for name, path in genomes.items()}
    train_species(settings(mine, base, tmp_path / "run", max_steps=1))
    mine["poor"].unlink()
    done = CliRunner().invoke(app, ["classify-species", "evaluate", str(tmp_path / "run"), "--device", "cpu"])
    assert done.exit_code == 1
    assert f"has a file that is not there: {mine['poor']}" in done.stderr.replace("\n", "")
    assert "put them back where its config.yaml has them" in done.stderr.replace("\n", " ")


def test_the_model_knows_its_window_and_species(run: Path, genomes: dict[str, Path]) -> None:
    model = load_model(run)
    head = model.config.head
    assert head is not None
    assert (head.labels, head.window, head.average_windows, head.rc) == (tuple(KINDS), 64, True, True)
    assert yaml.safe_load((run / "config.yaml").read_text())["rc_augment"]
    for place, path in enumerate(genomes.values()):
        bases = "".join(path.read_text().splitlines()[1:40]).encode()
        [answer] = predict_with(model, [SequenceRecord("x", "x", 0, len(bases), bases=bases)], rc=False)
        assert answer.logits is not None
        assert int(answer.logits.argmax()) == place


def test_a_resumed_run_is_bit_identical(genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    changes: dict[str, Any] = {"keep": 20, "eval_every": 10, "rc_augment": True, "length_warmup": "32:10"}
    train_species(settings(genomes, base, one, **changes))
    shutil.copytree(one, two, symlinks=True)
    folder = two / "checkpoints"
    best = json.loads((folder / "step-10" / "trainer.json").read_text())["best_step"]
    for name, step in (("last", 10), ("best", best)):
        (folder / name).unlink()
        (folder / name).symlink_to(f"step-{step}")
    train_species(settings(genomes, base, two, resume=True, **changes))
    first, second = (load_model(path / "checkpoints" / "last").state_dict() for path in (one, two))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert value(one, "test", "accuracy") == value(two, "test", "accuracy")


def test_a_finished_run_is_calibrated_once(genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    run, changes = tmp_path / "run", {"max_length": 8, "max_steps": 8, "eval_every": 2, "keep": 1}
    changes |= {"experts": "markov"}
    train_species(settings(genomes, base, run, **changes))
    assert (run / "checkpoints" / "best" / "experts.json").exists()
    said, weights = json.loads((run / "metrics.json").read_text()), load_model(run).state_dict()
    assert said["calibration"]["temperature"] != pytest.approx(1, abs=1e-3)
    train_species(settings(genomes, base, run, resume=True, **changes))
    assert json.loads((run / "metrics.json").read_text()) == said
    assert (run / "checkpoints" / "best" / "experts.json").exists()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_model(run).state_dict().items())


def test_two_ranks_are_one(genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    species = [part for name, path in genomes.items() for part in ("--species", f"{name}={path}")]
    flags = ["--max-length", "64", "--max-steps", "6", "--global-batch-size", "12", "--micro-batch-size", "6"]
    flags += ["--eval-windows", "11", "--eval-every", "3", "--lr", "1e-2", "--no-baseline", "--device", "cpu"]
    found = []
    for ranks in (1, 2):
        run = tmp_path / str(ranks)
        job = run_job("classify-species train", *species, "-m", base, *flags, "-o", run, ranks=ranks)
        assert job.exit_codes == [0] * ranks, job.stderr
        said = json.loads((run / "metrics.json").read_text())
        losses = said["experts"]["on_pieces"]["256"]["losses"]
        found.append([*said["calibration"]["valid_loss"], value(run, "test", "auroc"), *losses.values()])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("method", ["head", "lora", "soft-prompt"])
def test_a_frozen_model_stays(method: str, genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    own = {"prompt_tokens": 2, "max_length": 60} if method == "soft-prompt" else {}
    train_species(settings(genomes, base, tmp_path / "run", method=method, max_steps=5, **own))
    before, after = load_model(base).state_dict(), load_model(tmp_path / "run").state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_bad_use_is_told(genomes: dict[str, Path], base: Path, tmp_path: Path) -> None:
    one = {"rich": genomes["rich"]}
    with pytest.raises(UserError, match="is the only one; give another to tell it from"):
        train_species(settings(one, base, tmp_path / "run"))
    with pytest.raises(UserError, match=r"rich\.fa"):
        train_species(settings({"a": genomes["rich"], "b": genomes["rich"]}, base, tmp_path / "run"))
    with pytest.raises(UserError, match="--max-length 67 is beyond what the model takes, 66 bases"):
        train_species(settings(genomes, base, tmp_path / "run", max_length=67))
    with pytest.raises(UserError, match="--lora-rank: belongs to --method lora"):
        train_species(settings(genomes, base, tmp_path / "run", lora_rank=2))
    with pytest.raises(UserError, match="--circular: no contig 'rich' in the genomes; did you mean 'rich"):
        train_species(settings(genomes, base, tmp_path / "run", circular="rich"))
    assert not (tmp_path / "run").exists()


def test_a_rank_beyond_the_windows_has_nothing_to_do(
    run: Path, genomes: dict[str, Path], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(genomes, base, run)
    held = HeldOut(split_run(config, open_run_genomes(config), 64), "test", 64, 1)
    monkeypatch.setattr("hyenacli.adaptation.evaluation.current_ranks", lambda: Ranks(rank=3, world_size=4))
    alone = held.logits(load_model(run), rc=False, precision=nullcontext, device=torch.device("cpu"))
    assert np.array_equal(alone, np.zeros((3, 3)))  # what it adds to those of the others


def test_tokens_are_bases_again() -> None:
    tokens = Tokenizer().encode_array(b"ACGTNACG")
    assert bases_of(np.asarray(tokens, np.uint8)[None]) == [b"ACGTNACG"]


def test_accuracy_by_length(run: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "lengths.tsv", tmp_path / "lengths.svg"
    config = SpeciesEvaluateSettings(
        run=run, output=out, windows=20, plot=plot, lengths="64,150,8,64", threshold=0.35, device="cpu"
    )
    evaluate.run(config, BASELINE_WINDOWS)
    with out.open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [(row["length"], row["windows"]) for row in rows] == [("8", "60"), ("64", "60"), ("150", "60")]
    assert float(rows[0]["accuracy"]) < float(rows[1]["accuracy"]) > 0.9
    assert float(rows[2]["accuracy"]) > 0.9
    for row in rows:
        recalls = [float(row[f"recall_{name}"]) for name in KINDS]
        assert np.mean(recalls) == pytest.approx(float(row["accuracy"]), abs=1e-3)
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
        assert float(row["kmers_accuracy"]) > 0.4
        assert float(row["network_accuracy"]) > 0.3
        assert float(row["markov_accuracy"]) > (0.3 if row["length"] == "8" else 0.8)
        assert 0 < float(row["answered"]) <= 1
        assert float(row["accuracy_answered"]) >= float(row["accuracy"])
        for name, recall in zip(KINDS, recalls, strict=True):
            taken_for = [int(row[f"{name}_as_{other}"]) for other in KINDS]
            assert sum(taken_for) == 20
            assert int(row[f"{name}_as_{name}"]) == round(20 * recall)
    assert all(name in plot.read_text() for name in ("k-mers", "Markov models", "network alone"))


def test_lengths_of_long_pieces_are_measured_by_default(run: Path) -> None:
    command = ["classify-species", "evaluate", str(run), "--windows", "5", "--no-baseline", "--device", "cpu"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    rows = [line.split("\t")[0] for line in done.stdout.splitlines() if not line.startswith("##")]
    assert rows == ["length", "64", "256"]


def test_contigs_are_predicted_as_the_joined_model_was_measured(
    run: Path, genomes: dict[str, Path], tmp_path: Path
) -> None:
    config = settings(genomes, run, run)
    held = HeldOut(split_run(config, open_run_genomes(config), 64), "test", 150, 4)
    contigs = [(f"c{i}", bases.decode()) for i, bases in enumerate(held.sequences)]
    write_fasta(tmp_path / "contigs.fa", contigs)
    # each part counts, also that of a network which is left out
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    folder = (run / "checkpoints" / "best").resolve()
    saved = load_experts(folder)
    assert saved is not None
    replace(saved, weights=JointWeights((0.5, 0.02, 0.3), (0.1, -0.2, 0.1))).save(folder)
    command = ["classify-species", "predict", str(tmp_path / "contigs.fa"), "-m", str(run), "-o", "-"]
    done = CliRunner().invoke(app, [*command, "--min-length", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    assert "the Markov models and k-mers beside the network join its predictions" in done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines(), delimiter="\t"))
    experts = load_experts(folder)
    assert experts is not None
    logits_NWK = []
    records = [SequenceRecord.of_sequence("", bases) for bases in held.sequences]
    for answer in predict_with(load_model(run), records, rc=True):
        parts = [answer.record.bases[start:end] for start, end in answer.windows]
        log_p_WK, logits_WK = (model.outputs(parts)[0] for model in experts.models)
        network, markov, kmers = experts.weights.factors
        joined_WK = network * answer.window_logits + markov * log_p_WK + kmers * logits_WK
        logits_NWK.append(joined_WK + experts.weights.bias)
    p_NK = probabilities("multiclass", np.mean(logits_NWK, axis=1))
    said_NK = np.array([[float(row[f"p_{name}"]) for name in KINDS] for row in rows])
    np.testing.assert_allclose(said_NK, p_NK, atol=1e-5)
    joined = api.predict([bases for _, bases in contigs], run, device="cpu")
    np.testing.assert_allclose(np.stack([joined[f"p_{name}"] for name in KINDS], axis=1), p_NK, atol=1e-5)


def test_long_contigs_are_joined_by_what_was_fitted_to_long_pieces(run: Path) -> None:
    saved = load_experts((run / "checkpoints" / "best").resolve())
    assert saved is not None
    assert len(saved.models) == 2
    # each part counts
    weights = JointWeights((0.5, 0.02, 0.3), (0.1, -0.2, 0.1))
    on_pieces = {256: replace(saved, models=saved.models[::-1], weights=weights)}
    experts, rng = replace(saved, on_pieces=on_pieces), random.Random(7)
    bases = "".join(rng.choices("ACGT", k=600)).encode()
    bases = bases[:300] + b"N" * 90 + bases[390:]
    for circular in (False, True):
        record = replace(SequenceRecord.of_sequence("x", bases), circular=circular)
        other = replace(record, bases=reverse_complement(bases))
        answer, turned = predict_with(load_model(run), [record, other], rc=True)
        [joined] = join_predictions([answer], experts)
        [again] = join_predictions([turned], experts)
        np.testing.assert_allclose(joined.logits, again.logits, atol=1e-5)
        assert answer.window_logits is not None
        expected = []
        for start, end in even_windows(600, 256, 256, circular=circular):
            middles = [((first + last) / 2 - start) % 600 for first, last in answer.windows]
            inside = [i for i, middle in enumerate(middles) if middle <= end - start]
            assert 2 <= len(inside) <= 5
            kmers, markov = (model.outputs([(2 * bases)[start:end]])[0, 0] for model in on_pieces[256].models)
            network = answer.window_logits[inside].mean(axis=0)
            expected.append(0.5 * network + 0.02 * kmers + 0.3 * markov + [0.1, -0.2, 0.1])
        np.testing.assert_allclose(joined.logits, np.mean(expected, axis=0), atol=1e-9)
        [alone] = join_predictions([answer], saved)
        np.testing.assert_array_equal(joined.window_logits, alone.window_logits)


def test_a_piece_of_little_but_n_says_nothing(run: Path) -> None:
    saved = load_experts((run / "checkpoints" / "best").resolve())
    assert saved is not None
    longer = replace(saved, weights=JointWeights((0.5, 0.02, 0.3)), on_pieces={})
    rng = random.Random(8)
    bases = "".join(rng.choices("ACGT", k=256)).encode()
    both = replace(saved, on_pieces={256: longer, 1024: longer})

    def logits(sequence: bytes, experts: Experts) -> Any:
        answers = predict_with(load_model(run), [SequenceRecord.of_sequence("x", sequence)], rc=True)
        return next(join_predictions(answers, experts)).logits

    padded = bases[:64] + b"N" * 960
    np.testing.assert_allclose(logits(padded, both), logits(padded, replace(both, on_pieces={})))
    # of 2,048 bases one half is a piece, the other none; 1,024 of a quarter are read in pieces of 256
    np.testing.assert_allclose(logits(bases * 4 + b"N" * 1024, both), logits(bases * 4, both), atol=1e-5)
    np.testing.assert_allclose(logits(bases + b"N" * 768, both), logits(bases, both), atol=1e-5)


def test_experts_of_pieces_are_saved(run: Path, tmp_path: Path) -> None:
    saved = load_experts((run / "checkpoints" / "best").resolve())
    assert saved is not None
    markov, kmers = saved.models
    assert isinstance(kmers, KmerModel)
    other = replace(saved, models=(kmers,), weights=JointWeights((0.0, 2.0)), on_pieces={})
    alone = Experts((), JointWeights((1.5,), (0.1, 0.2, 0.3)))
    longer = replace(saved, models=(markov, replace(kmers, penalty=0.5)), on_pieces={})
    experts = replace(saved, on_pieces={1024: other, 256: alone, 4096: longer})
    experts.save(tmp_path)
    restored = load_experts(tmp_path)
    assert restored is not None
    assert list(restored.on_pieces) == [256, 1024, 4096]
    assert restored.on_pieces[256] == alone
    assert [getattr(model, "penalty", None) for model in restored.on_pieces[4096].models] == [None, 0.5]
    sequences = [b"ACGT" * 20, b"GATTACA" * 12]
    for length in (None, 256, 1024, 4096):
        one, two = (e if length is None else e.on_pieces[length] for e in (experts, restored))
        logits = [part.join(np.ones((2, 3)), sequences) for part in (one, two)]
        np.testing.assert_allclose(*logits, atol=1e-6)


def test_few_validation_bases_have_no_long_pieces(genomes: dict[str, Path], base: Path, run: Path) -> None:
    config = settings(genomes, base, run)
    splits = split_run(config, open_run_genomes(config), 64)
    assert {length: len(pieces) for length, pieces in held_out_pieces(splits, 64, 12).items()} == {256: 33}
    assert held_out_pieces(splits, 64, 9) == {}  # 27 pieces say too little
    assert held_out_pieces(splits, 256, 12) == {}


@pytest.mark.parametrize("rc", [False, True])
def test_what_is_longer_than_the_window_is_judged_as_it_is_predicted(
    run: Path, genomes: dict[str, Path], base: Path, *, rc: bool
) -> None:
    model, config = load_model(run).eval(), settings(genomes, base, run)
    held = HeldOut(split_run(config, open_run_genomes(config), 64), "test", 150, 5)
    device = torch.device("cpu")
    logits = held.logits(model, rc=rc, precision=nullcontext, device=device)
    contigs = [FastaRecord("", "", bases) for bases in held.sequences]
    recipe = species_options(species_head(model), rc=rc)
    with torch.inference_mode():
        answers = [answer for _, answer in classify(model, contigs, recipe, min_length=1)]
    assert {len(answer.windows) for answer in answers} == {3}
    for answer, logits_K in zip(answers, logits, strict=True):
        np.testing.assert_allclose(answer.logits, logits_K, atol=1e-5)


def test_quality_of_a_length() -> None:
    p_NK = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.45, 0.55]])
    one = AccuracyAtLength(64, np.array([1, 0, 1, 1]), p_NK, 0.0, 1.0)
    assert one.confusion.tolist() == [[1, 0], [1, 2]]
    assert one.accuracy == 0.75
    assert one.recall.tolist() == [1, pytest.approx(2 / 3)]
    assert one.precision.tolist() == [0.5, 1]
    assert one.answered(0.8) == (0.5, 1.0)
    assert one.answered(0.6) == (0.75, pytest.approx(2 / 3))
    assert np.isnan(one.answered(0.95)[1])


def test_no_window_of_a_length(run: Path) -> None:
    command = ["classify-species", "evaluate", str(run), "--lengths", "100000", "--device", "cpu"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "no length has windows of every species; give shorter ones to --lengths" in done.stderr


def test_another_run_is_not_evaluated(base: Path) -> None:
    done = CliRunner().invoke(app, ["classify-species", "evaluate", str(base)])
    assert done.exit_code == 1
    assert "is no run directory; name one of `hyena classify-species train`" in done.stderr
