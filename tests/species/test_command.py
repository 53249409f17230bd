"""`hyena classify-species predict` as it is typed: its files, its shards, and what it refuses."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.evaluation.calibration import probabilities
from hyenacli.readers.sequences import FastaRecord
from hyenacli.species.predict import classify, species_options
from hyenadna import load_model
from hyenadna.config import HeadConfig
from tests.builders import random_dna, write_circle
from tests.toys import save_heads
from tests.warm import run_job

HEADS = {
    "run": HeadConfig("multiclass", 3, ("human", "mouse", "E. coli"), rc=True),
    "two": HeadConfig("binary", 2, ("cat", "dog")),
    "levels": HeadConfig("regression", 1, ("label",)),
    "bases": HeadConfig("binary", 2, ("out", "in"), level="nucleotide"),
}
CONTIGS = {
    "long": random_dna(150, 1),
    "short": random_dna(29, 2),
    "none": "",
    "gap": "N" * 90,
    "half": "N" * 70 + random_dna(80, 3),
    "rna": random_dna(64, 4).replace("T", "u"),
}
FASTA = "".join(f">{name} of x\n{bases}\n" for name, bases in CONTIGS.items()).encode()
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model for each head, and one without."""
    return save_heads(tmp_path_factory.mktemp("models"), HEADS)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path) -> Run:
    """Run the command in a directory with the models and a FASTA."""
    monkeypatch.chdir(tmp_path)
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "c.fa.gz").write_bytes(gzip.compress(FASTA))

    def invoke(line: str, stdin: bytes | None = None) -> Any:
        return CliRunner().invoke(app, ["classify-species", "predict", *line.split()], input=stdin)

    return invoke


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def expect(bases: str, name: str = "run", **how: Any) -> np.ndarray:
    """The probabilities that the library gives for a contig."""
    model = load_model(name)
    recipe = species_options(model.config.head, **({"rc": model.config.head.rc} | how))
    contig = FastaRecord("x", "", bases.upper().replace("U", "T").encode())
    ((_, answer),) = classify(model, [contig], recipe, min_length=1)
    return probabilities(model.config.head.task, answer.logits)


def test_a_row_for_each_contig_in_their_order(run: Run, tmp_path: Path) -> None:
    result = run("c.fa.gz -m run -o out.tsv --min-length 30 --top 2")
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    header, *records = rows(Path("out.tsv").read_text())
    assert header == [
        *("id", "length", "n_windows", "n_bases", "status", "prediction", "probability", "top"),
        *("p_human", "p_mouse", "p_E. coli"),
    ]
    assert [record[:5] for record in records] == [
        ["long", "150", "3", "150", "OK"],
        ["short", "29", "0", "0", "TOO_SHORT"],
        ["none", "0", "0", "0", "EMPTY"],
        ["gap", "90", "0", "0", "N_CONTENT"],
        ["half", "150", "2", "107", "OK"],
        ["rna", "64", "1", "64", "OK"],
    ]
    names = ("human", "mouse", "E. coli")
    for record in records:
        if record[4] != "OK":
            assert record[5:] == [""] * 6
            continue
        p_S = expect(CONTIGS[record[0]])
        best = np.argsort(-p_S)
        assert record[5] == names[best[0]]
        assert float(record[6]) == pytest.approx(p_S.max(), abs=1e-5)
        assert [text.rsplit(":")[0] for text in record[7].split(",")] == [names[i] for i in best[:2]]
        np.testing.assert_allclose(np.array(record[8:], float), p_S, atol=1e-5)
    assert "classified 3 contigs (" in result.stderr
    assert "), 1 TOO_SHORT, 1 EMPTY, 1 N_CONTENT: 364 bases in " in result.stderr
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out.tsv"]


def test_below_the_threshold_a_contig_is_unknown(run: Run) -> None:
    sure = rows(run("c.fa.gz -m two -o - -q --min-length 1").stdout)[1:]
    probable = sorted(float(record[6]) for record in sure if record[4] == "OK")
    threshold = (probable[0] + probable[1]) / 2
    found = rows(run(f"c.fa.gz -m two -o - -q --min-length 1 --threshold {threshold}").stdout)[1:]
    for one, other in zip(sure, found, strict=True):
        unknown = one[4] == "OK" and float(one[6]) < threshold
        assert other == [*one[:5], "unknown" if unknown else one[5], *one[6:]]
    assert [record[5] for record in found].count("unknown") == 1
    assert all(record[5] in ("cat", "dog", "") for record in sure)


def test_windows_and_strands_are_the_users_to_choose(run: Run) -> None:
    for flags, how in (
        ("", {}),
        ("--rc none --window 40 --stride 13", {"rc": False, "window": 40, "stride": 13}),
    ):
        (_, record) = rows(run(f"- -m run -o - -q --min-length 30 {flags}", stdin=FASTA).stdout)[:2]
        np.testing.assert_allclose(np.array(record[7:], float), expect(CONTIGS["long"], **how), atol=1e-5)
    # shorter than --min-length by default
    assert rows(run("c.fa.gz -m run -o - -q").stdout)[1][4] == "TOO_SHORT"


def test_contigs_that_are_circles_are_read_across_their_ends(run: Run) -> None:
    result = run("c.fa.gz -m two -o - --per-window w.tsv --circular rna,ring --window 50 --min-length 30")
    assert result.exit_code == 0, result.output
    assert "--circular: no contig ring" in result.stderr
    spans = [[int(row[1]), int(row[2])] for row in rows(Path("w.tsv").read_text())[1:] if row[0] == "rna"]
    assert spans == [[55, 105], [23, 73]]
    write_circle(Path("rna.gb"), "rna", CONTIGS["rna"].upper().replace("U", "T"))
    result = run("rna.gb -m two -o - --per-window gb.tsv --window 50 --min-length 30")
    assert result.exit_code == 0, result.output
    assert [[int(row[1]), int(row[2])] for row in rows(Path("gb.tsv").read_text())[1:]] == spans


def test_the_windows_in_a_table_of_their_own(run: Run) -> None:
    line = "c.fa.gz -m two -o out.npz --per-window w.parquet --min-length 30 --window 50 --stride 25 -q"
    assert run(line).exit_code == 0
    table = pq.read_table("w.parquet").to_pylist()
    places = [(row["id"], row["start"], row["end"]) for row in table]
    assert places == [
        *(("long", start, start + 50) for start in range(0, 101, 25)),
        *(("half", start, start + 50) for start in (50, 75, 100)),
        *(("rna", start, start + 50) for start in (0, 14)),
    ]
    bases = CONTIGS["half"][75:125]
    assert table[6]["prediction"] == ("cat", "dog")[expect(bases, "two").argmax()]
    assert table[6]["p_dog"] == pytest.approx(expect(bases, "two")[1], abs=1e-5)
    about = json.loads(pq.read_schema("w.parquet").metadata[b"hyena"])
    assert about["settings"]["output"] == "w.parquet"
    assert (about["settings"]["window"], about["strands"], len(about["model_sha256"])) == (50, "one", 64)


def test_records_go_byte_for_byte_to_the_file_of_their_species(run: Run) -> None:
    data = FASTA.replace(b"\n", b"\r\n").rstrip()
    result = run("- -m run -o - --split-fasta split --min-length 30 --threshold 0.01 -q", stdin=data)
    assert result.exit_code == 0, result.output
    wanted: dict[str, bytes] = {}
    files = {"": "unclassified.fa", "unknown": "unknown.fa", "E. coli": "E_coli.fa"}
    for record, text in zip(rows(result.stdout)[1:], data.split(b">")[1:], strict=True):
        name = files.get(record[5], f"{record[5]}.fa")
        wanted[name] = wanted.get(name, b"") + b">" + text
    assert {path.name: path.read_bytes() for path in Path("split").iterdir()} == wanted
    refused = run("c.fa.gz -m run -o - --split-fasta split")
    assert "split: the directory is not empty; add --force" in refused.stderr
    assert run("c.fa.gz -m run -o - --split-fasta split --force --threshold 1").exit_code == 0
    assert sorted(path.name for path in Path("split").iterdir()) == ["unclassified.fa"]


def test_unknown_contigs_have_a_file(run: Run) -> None:
    line = "c.fa.gz -m run -o o.tsv --split-fasta split --min-length 30 --threshold 1"
    assert run(line).exit_code == 0
    assert sorted(path.name for path in Path("split").iterdir()) == ["unclassified.fa", "unknown.fa"]


@pytest.mark.parametrize("flags", ["-b 1", "-b 64", "-@ 1"])
def test_batches_and_threads_change_nothing(run: Run, flags: str) -> None:
    threads = torch.get_num_threads()
    line = "c.fa.gz -m run -q --min-length 1 --window 48 --stride 30"
    assert run(f"{line} -o one.npz").exit_code == 0
    assert run(f"{line} -o other.npz {flags}").exit_code == 0
    torch.set_num_threads(threads)
    with np.load("one.npz") as one, np.load("other.npz") as other:
        np.testing.assert_array_equal(one["status"], other["status"])
        np.testing.assert_allclose(one["p_mouse"], other["p_mouse"], atol=1e-4)


@pytest.mark.parametrize("kind", ["tsv", "tsv.gz", "parquet"])
def test_joined_shards_are_the_single_run(run: Run, tmp_path: Path, kind: str) -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("ACGTN", [3, 2, 2, 3, 3], k=rng.randint(0, 150))) for _ in range(9)]
    (tmp_path / "many.fa").write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(texts)))
    for number in (1, 2, 3):
        tables = f"-o {number}.{kind} --per-window w{number}.{kind}"
        result = run(f"many.fa -m run -b 1 -q --min-length 9 {tables} --shard {number}/3")
        assert result.exit_code == 0, result.output
    assert run(f"many.fa -m run -b 1 -q --min-length 9 -o a.{kind} --per-window wa.{kind}").exit_code == 0
    for mark in ("", "w"):
        names = [f"{mark}{number}.{kind}" for number in (2, 3, 1)]
        one = Path(f"{mark}a.{kind}").read_bytes()
        joined = CliRunner().invoke(app, ["merge", *names, "-o", f"{mark}a.{kind}"])
        assert joined.exit_code == 0, joined.output
        assert len(one) > 100
        if kind != "parquet":
            assert Path(f"{mark}a.{kind}").read_bytes() == one
            continue
        (tmp_path / "one.parquet").write_bytes(one)
        table, whole = pq.read_table("one.parquet"), pq.read_table(f"{mark}a.parquet")
        assert whole.schema.equals(table.schema, check_metadata=True)
        assert str(whole.to_pylist()) == str(table.to_pylist())


def test_processes_of_torchrun_write_one_file_each(run: Run, tmp_path: Path) -> None:
    line = "-m run --min-length 9 -b 1 -@ 1"
    assert run(f"c.fa.gz {line} -q -o one.tsv --per-window wone.tsv").exit_code == 0
    job = run_job(f"classify-species predict c.fa.gz {line} -o many.tsv --per-window wmany.tsv")
    assert job.exit_codes == [0, 0], job.stderr
    assert sorted(found.name for found in tmp_path.glob("*many*")) == ["many.tsv", "wmany.tsv"]
    for mark in ("", "w"):
        assert Path(f"{mark}many.tsv").read_bytes() == Path(f"{mark}one.tsv").read_bytes()


BAD = [
    # arguments: exit 2
    (
        "c.fa.gz -m run -o o.tsv --rc both",
        2,
        "Invalid value for '--rc': 'both' is not one of 'auto', 'none'",
    ),
    ("c.fa.gz -m run -o o.tsv --window 9 --stride 10", 2, "--stride: a stride of 10 skips bases"),
    ("c.fa.gz -m run -o o.tsv --stride 65", 2, "--stride: a stride of 65 skips bases between windows of 64"),
    ("c.fa.gz -m run -o o.tsv --window 900", 2, "the model takes at most 64 bases, not 900"),
    ("c.fa.gz -m run -o o.tsv --threshold 1.5", 2, "--threshold"),
    ("c.fa.gz -m run -o o.tsv --top 0", 2, "--top"),
    ("c.fa.gz -m run -o o.tsv -b some", 2, "--batch-size: unknown batch size 'some'"),
    ("c.fa.gz -m run -o o.tsv --dtype float16", 2, "Invalid value for '--dtype': 'float16' is not one of"),
    ("c.fa.gz -m run -o o.tsv --device gpu", 2, "--device: unknown device 'gpu'"),
    ("c.fa.gz -m run -o o.bed", 2, "o.bed: the suffix names no table type; use one of .parquet, .tsv, .tsv."),
    ("c.fa.gz -m run -o o.tsv --per-window w.h5", 2, "w.h5: the suffix names no table type"),
    ("c.fa.gz -m run -o o.tsv --per-window ./o.tsv", 2, "--per-window: is the output already"),
    ("c.fa.gz -m run -o o.tsv --force", 2, "--force replaces the directory of --split-fasta; leave it out"),
    ("c.fa.gz -m run -o - --split-fasta .", 2, ".: c.fa.gz lies in this directory, which is written whole"),
    ("c.fa.gz -m run -o no/o.tsv --split-fasta d --shard 1/2", 1, "no/o.tsv: cannot be written"),
    ("c.fa.gz -m run -o o.tsv --split-fasta d --shard 1/2", 2, "--split-fasta: writes one directory"),
    ("- -m run -o o.tsv --shard 1/2", 2, "standard input: a stream cannot be read twice"),
    ("plain.fa -m run -o plain.fa -O tsv", 2, "plain.fa: is an input of this very command"),
    # data: exit 1
    ("c.fa.gz -m headless -o o.tsv", 1, "headless: the model has no head, so it knows no species; train one"),
    ("c.fa.gz -m levels -o o.tsv", 1, "levels: the model's head is for regression"),
    ("c.fa.gz -m bases -o o.tsv", 1, "bases: the model predicts each base by itself"),
    ("c.fa.gz -m run -o o.tsv --split-fasta plain.fa", 1, "plain.fa: is a file, and a directory is needed"),
    ("bed -m run -o o.tsv", 1, "bed, line 1: text before the first record; FASTA begins with '>'"),
    ("blank.fa -m run -o o.tsv", 1, "blank.fa: no FASTA records"),
    ("no.fa -m run -o o.tsv", 1, "no.fa: no such file"),
    ("c.fa.gz -m nothing -o o.tsv", 1, "nothing"),
]


def test_an_empty_part_gives_an_empty_table(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.fa").touch()
    for shard in ("", " --shard 2/2"):
        result = run(f"empty.fa -m run -o o.tsv{shard}")
        assert result.exit_code == 0, result.stderr
        assert "classified 0 contigs" in result.stderr


@pytest.mark.parametrize(("line", "code", "said"), BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, line: str, code: int, said: str
) -> None:
    (tmp_path / "plain.fa").write_bytes(FASTA)
    (tmp_path / "bed").write_text("chr1\t1\t2\n")
    (tmp_path / "blank.fa").write_text("\n\n")
    before = {path.name for path in tmp_path.iterdir()}
    result = run(line, stdin=FASTA)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert said in result.stderr
    errors = [text for text in result.stderr.splitlines() if text.startswith("hyena: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == before


def test_one_bad_contig_costs_no_other(run: Run) -> None:
    Path("some.fa").write_text(f">a\n{'ACGT' * 10}\n>b\nAEEPQ\n>c\n{'TTGC' * 10}\n")
    result = run("some.fa -m run -o - --split-fasta d --min-length 30")
    assert result.exit_code == 0, result.output
    assert [row[4] for row in rows(result.stdout)[1:]] == ["OK", "BAD_LETTER", "OK"]
    assert "some.fa: 1 record without a result, the first as 'E' in record 'b'" in result.stderr
    assert Path("d/unclassified.fa").read_text() == ">b\nAEEPQ\n"


def test_processes_of_torchrun_share_no_stream_and_no_directory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for line, said in (
        ("- -m run -o o.tsv", "several processes cannot share standard input"),
        ("c.fa.gz -m run -o o.tsv --per-window -", "several processes cannot share stdout"),
        ("c.fa.gz -m run -o o.tsv --split-fasta d", "--split-fasta: writes one directory"),
    ):
        result = run(line)
        assert result.exit_code == 2
        assert said in result.stderr


def test_json_events_hold_the_counts(run: Run) -> None:
    assert run("c.fa.gz -m two -o o.tsv --log-json log.jsonl -q --min-length 30").exit_code == 0
    events = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    (done,) = [event for event in events if event["event"] == "classify-species"]
    assert (done["contigs"], done["bases"]) == (3, 364)
    assert done["failed"] == {"TOO_SHORT": 1, "EMPTY": 1, "N_CONTENT": 1}
    assert sum(done["predictions"].values()) == 3


def test_help_shows_what_is_in_brackets() -> None:
    done = CliRunner().invoke(app, ["classify-species", "train", "--help"], env={"COLUMNS": "400"})
    assert "`mouse: [a.fa, b.fa]`" in done.stdout
    assert "valid: [chr1], test: [chr5]" in done.stdout


def test_help_names_the_rules_and_gives_an_example() -> None:
    for flag in ("-h", "--help"):
        done = CliRunner().invoke(app, ["classify-species", "predict", flag])
        assert done.exit_code == 0
        text = " ".join(done.stdout.split())
        for said in ("Examples: hyena classify-species predict", "TOO_SHORT", "N_CONTENT", "--per-window"):
            assert said in text
