"""`hyena predict` as it is typed: what it writes for each kind of input, what it refuses, and its shards."""

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.evaluation.calibration import probabilities
from hyenacli.finetune import predict_command as command
from hyenacli.genome.dna import reverse_complement
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaDNA, load_model
from hyenadna.config import HeadConfig
from tests.toys import predict_with, save_heads
from tests.warm import run_job

CHR1 = b"ACGTTGCAAC" * 12
CHR2 = b"GGCATTACAN" * 3
BED = "chr1\t10\t30\tpeak\t0\t-\nchrU\t1\t2\nchr2\t0\t30\nchr1\t40\t120\n"
HEADS = {
    "sites": HeadConfig("binary", 2, ("no", "yes"), rc=True),
    "last": HeadConfig("multiclass", 3, pool="last"),
    "levels": HeadConfig("regression", 1, ("label",), center=(5.0,), scale=(2.0,)),
    "tags": HeadConfig("multilabel", 2, ("dna ase", "start")),
    "bases": HeadConfig("binary", 2, ("out", "in"), level="nucleotide"),
    "three": HeadConfig("multiclass", 3, ("a", "b", "c"), level="nucleotide"),
}
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model for each head, and one without."""
    return save_heads(tmp_path_factory.mktemp("models"), HEADS)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path) -> Run:
    """Run the command in a directory with the models and a file of every kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "g.fa").write_bytes(b">1 one\n" + CHR1 + b"\n>2\n" + CHR2.lower() + b"\n")
    (tmp_path / "r.bed").write_text(BED)
    (tmp_path / "s.fa.gz").write_bytes(gzip.compress(b">a|1\nACGT\nAC\n>none\n>b again\nNNNN\n"))
    (tmp_path / "t.csv").write_text('id,label,Seq,split\nx,1,acgtac,test\n,0,,train\n"p\tq",1,NNNN,\n')
    pq.write_table(
        pa.table({"sequence": ["ACGTAC", "NNNN"], "label": [[1.0], [2.0]]}), tmp_path / "t.parquet"
    )
    for name, bases in (("train/pos/p1", "ACGTAC"), ("test/neg/n1", "NNNN")):
        (tmp_path / "folder" / name).parent.mkdir(parents=True)
        (tmp_path / "folder" / f"{name}.txt").write_text(bases)

    def invoke(line: str, stdin: bytes | None = None) -> Any:
        return CliRunner().invoke(app, ["predict", *line.split()], input=stdin)

    return invoke


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def expect(name: str, bases: bytes, **how: Any) -> np.ndarray:
    """The values (V,) or (L, V) that the library gives for a sequence."""
    model: HyenaDNA = load_model(name)
    how = {"rc": model.config.head.rc} | how
    (answer,) = predict_with(model, [SequenceRecord("x", "x", 0, len(bases), bases=bases)], **how)
    return probabilities(model.config.head.task, np.atleast_2d(answer.logits)).squeeze()


def test_a_bed_becomes_a_table_in_input_order(run: Run, tmp_path: Path) -> None:
    result = run("r.bed -f g.fa -m sites -o out.tsv")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "matched 2/3 contigs, chr1 read as 1, chr2 read as 2" in result.stderr
    assert "1 of 3 contigs are not in g.fa: chrU (1 record)" in result.stderr
    assert "predicted 3 records, 1 NO_CONTIG: 130 bases in " in result.stderr
    header, *records = rows(Path("out.tsv").read_text())
    assert header[:9] == ["id", "chrom", "start", "end", "strand", "n_bases", "status", "prediction", "p_no"]
    assert [record[:7] for record in records] == [
        ["peak", "chr1", "10", "30", "-", "20", "OK"],
        ["chrU:2-2", "chrU", "1", "2", ".", "0", "NO_CONTIG"],
        ["chr2:1-30", "chr2", "0", "30", ".", "30", "OK"],
        ["chr1:41-120", "chr1", "40", "120", ".", "80", "OK"],
    ]
    assert records[1][7:] == ["", "", ""]
    for place, bases in ((0, CHR1[10:30]), (2, CHR2), (3, CHR1[40:])):
        wanted = expect("sites", bases)
        np.testing.assert_allclose(np.array(records[place][8:], float), wanted, atol=1e-5)
        assert records[place][7] == ("no", "yes")[wanted.argmax()]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == ["out.tsv"]


WANTED = [(b"ACGTAC", "6", "OK"), (b"", "0", "EMPTY"), (b"NNNN", "0", "ALL_N")]


@pytest.mark.parametrize(
    ("line", "names", "found"),
    [
        ("s.fa.gz", ["a|1", "none", "b"], WANTED),
        ("t.csv --sequence-column seq", ["x", "", "p q"], WANTED),
        ("t.csv --sequence-column 3 --id-column label", ["1", "0", "1"], WANTED),
        ("t.parquet", ["1", "2"], WANTED[::2]),
        ("folder", ["test/neg/n1", "train/pos/p1"], WANTED[::-2]),
    ],
)
def test_sequences_of_every_kind_need_no_labels(
    run: Run, line: str, names: list[str], found: list[tuple[bytes, str, str]]
) -> None:
    result = run(f"{line} -m levels -o - -q")
    assert result.exit_code == 0, result.output
    assert ("1 record without a result" in result.stderr) == ((b"", "0", "EMPTY") in found)
    header, *records = rows(result.stdout)
    assert header[6:] == ["status", "prediction"]
    if line == "folder":
        records.sort()
    chroms = names if line == "s.fa.gz" else [""] * len(names)
    assert [record[0] for record in records] == names
    assert [record[1] for record in records] == chroms
    for record, (bases, n_bases, status) in zip(records, found, strict=True):
        assert record[2:7] == ["0", str(len(bases)), ".", n_bases, status]
        value = f"{expect('levels', bases):.7g}" if status == "OK" else ""
        assert record[7] == value or abs(float(record[7]) - float(value)) < 1e-4


@pytest.mark.parametrize("packed", [False, True])
def test_stdin_is_sniffed(run: Run, packed: bool) -> None:
    for data, flags, name in (
        (b">x\nACGTACGT\n", "", "x"),
        (b"1\t0\t8\n", "-f g.fa", "1:1-8"),
        (b"sequence\tid\nACGTACGT\tt\n", "", "t"),
    ):
        result = run(f"- {flags} -m last -o - -q", stdin=gzip.compress(data) if packed else data)
        assert result.exit_code == 0, result.output
        assert rows(result.stdout)[1][0] == name
    buffer = io.BytesIO()
    pq.write_table(pa.table({"sequence": ["ACGT"]}), buffer)
    assert rows(run("- -m last -o - -q", stdin=buffer.getvalue()).stdout)[1][3] == "4"


def test_the_table_says_how_it_was_made(run: Run) -> None:
    assert run("r.bed -f g.fa -m tags -o out.parquet --rc mean").exit_code == 0
    table = pq.read_table("out.parquet")
    assert table.column_names[7:] == ["p_dna ase", "p_start"]
    values = np.stack([table[name].to_numpy() for name in table.column_names[7:]], axis=1)
    np.testing.assert_allclose(values[2], expect("tags", CHR2, rc=True), atol=1e-5)
    assert np.isnan(values[1]).all()
    about = json.loads(table.schema.metadata[b"hyena"])
    assert (about["task"], about["strands"], about["settings"]["rc"]) == (
        "multilabel",
        "mean of both",
        "mean",
    )
    assert len(about["model_sha256"]) == 64


def test_bases_are_rows_or_a_track(run: Run) -> None:
    result = run("-r 1:5-7 -r chr2:29 -f g.fa -m bases -o - -q --rc mean")
    records = rows(result.stdout)[1:]
    assert [record[:7] for record in records] == [
        *(["1:5-7", "1", str(start), str(start + 1), ".", "1", "OK"] for start in (4, 5, 6)),
        *(["chr2:29-30", "chr2", str(start), str(start + 1), ".", "1", "OK"] for start in (28, 29)),
    ]
    values = np.array([record[8:] for record in records], float)
    np.testing.assert_allclose(values[:3], expect("bases", CHR1[4:7], rc=True), atol=1e-5)
    track = run("-r 1:5-7 -r chr2:29 -f g.fa -m bases -o - -q --rc mean -O bedgraph")
    found = [(chrom, int(start), int(end), float(p)) for chrom, start, end, p in rows(track.stdout)]
    assert [row[:3] for row in found] == [
        ("1", 4, 5),
        ("1", 5, 6),
        ("1", 6, 7),
        ("chr2", 28, 29),
        ("chr2", 29, 30),
    ]
    np.testing.assert_allclose([row[3] for row in found], values[:, 1], atol=1e-6)


def test_a_track_of_whole_sequences_leaves_out_what_cannot_be_predicted(run: Run) -> None:
    result = run("s.fa.gz -m three --track b -o out.bedGraph.gz")
    assert "predicted 1 record, 1 EMPTY, 1 ALL_N: 6 bases" in result.stderr
    found = rows(gzip.decompress(Path("out.bedGraph.gz").read_bytes()).decode())
    values = np.zeros(6)
    for name, start, end, number in found:
        assert name == "a|1"
        values[int(start) : int(end)] = float(number)
    np.testing.assert_allclose(values, expect("three", b"ACGTAC")[:, 1], atol=1e-5)


def test_strands(run: Run) -> None:
    own, other = CHR1[10:30], reverse_complement(CHR1[10:30])
    plain = run("r.bed -f g.fa -m last -o -")
    assert "regions on the - strand are read as on the + strand; --stranded" in plain.stderr
    stranded = run("r.bed -f g.fa -m last -o - --stranded")
    assert "strand" not in stranded.stderr
    for result, bases in ((plain, own), (stranded, other)):
        values = np.array(rows(result.stdout)[1][8:], float)
        np.testing.assert_allclose(values, expect("last", bases), atol=1e-5)
    auto, none = (run(f"r.bed -f g.fa -m sites -o - {flag}") for flag in ("", "--rc none"))
    assert "strand;" not in auto.stderr
    np.testing.assert_allclose(
        np.array(rows(none.stdout)[3][8:], float), expect("sites", CHR2, rc=False), atol=1e-5
    )


@pytest.mark.parametrize("flags", ["-b 1", "-b 64", "-@ 1"])
def test_batches_and_threads_change_nothing(run: Run, flags: str) -> None:
    threads = torch.get_num_threads()
    line = "r.bed -f g.fa -m sites -q --window 48 --stride 30"
    assert run(f"{line} -o one.npz").exit_code == 0
    assert run(f"{line} -o other.npz {flags}").exit_code == 0
    torch.set_num_threads(threads)
    with np.load("one.npz") as one, np.load("other.npz") as other:
        np.testing.assert_allclose(one["p_yes"], other["p_yes"], atol=1e-4)
        np.testing.assert_allclose(
            one["p_yes"][3], expect("sites", CHR1[40:], window=48, stride=30)[1], atol=1e-4
        )


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("many.csv -m sites", "tsv"),
        ("many.fa -m bases", "bedgraph"),
        ("many.fa -m bases", "bedgraph.gz"),
        ("apart.bed -f g.fa -m bases", "bw"),
        ("many.bed -f g.fa -m last --stranded", "tsv.gz"),
        ("folder -m tags", "tsv"),
    ],
)
def test_joined_shards_are_the_single_run(run: Run, tmp_path: Path, line: str, kind: str) -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("ACGTN", k=rng.randint(0, 90))) for _ in range(7)]
    table = "".join(f"{text},r{i}\n" for i, text in enumerate(texts))
    (tmp_path / "many.csv").write_text(f"sequence,id\n{table}")
    (tmp_path / "many.fa").write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(texts)))
    (tmp_path / "many.bed").write_text("".join(f"chr{i % 3}\t{i}\t{i + 9}\tr\t0\t-\n" for i in range(7)))
    (tmp_path / "apart.bed").write_text("".join(f"chr{1 + i % 2}\t{i}\t{i + 1}\n" for i in range(28, 2, -1)))
    names = [f"{number}.{kind}" for number in (1, 2, 3)]
    for number, name in enumerate(names, 1):
        result = run(f"{line} -b 1 -q -o {name} --shard {number}/3")
        assert result.exit_code == 0, result.output
    assert run(f"{line} -b 1 -q -o one.{kind}").exit_code == 0
    joined = CliRunner().invoke(app, ["merge", *names[::-1], "-o", f"whole.{kind}"])
    assert joined.exit_code == 0, joined.output
    whole = Path(f"whole.{kind}").read_bytes()
    assert whole == Path(f"one.{kind}").read_bytes()
    assert len(whole) > 60


def test_processes_of_torchrun_write_one_file(run: Run, tmp_path: Path) -> None:
    assert run("t.csv --sequence-column Seq -m sites -b 1 -@ 1 -q -o one.tsv").exit_code == 0
    job = run_job("predict t.csv --sequence-column Seq -m sites -b 1 -@ 1 -o many.tsv")
    assert job.exit_codes == [0, 0], job.stderr
    assert [found.name for found in tmp_path.glob("*many*")] == ["many.tsv"]
    assert Path("many.tsv").read_bytes() == Path("one.tsv").read_bytes()


BAD = [
    # arguments: exit 2
    ("-m sites -o o.tsv", 2, "nothing to predict; name an INPUT, or regions with -r"),
    ("-r 1:1-2 -m sites -o o.tsv", 2, "-r names regions of a genome; give the genome with -f"),
    ("r.bed -r 1:1-2 -f g.fa -m sites -o o.tsv", 2, "-r stands instead of an INPUT"),
    ("r.bed -m sites -o o.tsv", 2, "r.bed: is a BED; give its genome with -f"),
    ("s.fa.gz -f g.fa -m sites -o o.tsv", 2, "s.fa.gz: is a FASTA, and -f gives the genome of a BED"),
    ("s.fa.gz --contig-aliases r.bed -m sites -o o.tsv", 2, "--contig-aliases: matches names with a genome"),
    ("s.fa.gz --id-column x -m sites -o o.tsv", 2, "s.fa.gz: has no such columns"),
    ("r.bed -f g.fa --id-column x -m sites -o o.tsv", 2, "r.bed: has no such columns"),
    ("t.csv -m sites -o o.h5ad", 2, "o.h5ad: the suffix names no table type; use one of .parquet, .tsv, "),
    ("t.csv -m sites -o - -O npz", 2, "-O: npz does not go to stdout"),
    ("s.fa.gz -m sites -o o.tsv --track yes", 2, "--track: only a bedGraph or bigWig has a track"),
    ("t.csv --sequence-column Seq -m bases -o o.bedgraph", 2, "t.csv: its sequences have no coordinates"),
    ("s.fa.gz -m sites -o o.bedgraph", 2, "and the model predicts sequences; write a table"),
    ("s.fa.gz -m three -o o.bedgraph", 2, "name it with --track: a, b, c"),
    ("s.fa.gz -m three -o o.bedgraph --track d", 2, "--track: the model has no output 'd'; known: a, b, c"),
    ("s.fa.gz -m sites -o o.tsv --rc both", 2, "Invalid value for '--rc': 'both' is not one of"),
    ("s.fa.gz -m sites -o o.tsv --window 9 --stride 10", 2, "--stride: a stride of 10 skips bases"),
    ("s.fa.gz -m sites -o o.tsv --window 900", 2, "the model takes at most 64 bases, not 900"),
    ("- -m sites -o o.tsv --shard 1/2", 2, "standard input: a stream cannot be read twice"),
    # data: exit 1
    (
        "s.fa.gz -m headless -o o.tsv",
        1,
        "headless: the model has no head to predict with; fine-tune one with",
    ),
    (
        "t.csv -m sites -o o.tsv",
        1,
        "t.csv: no column 'sequence'; the columns are id, label, Seq, split: name",
    ),
    ("v.vcf -m sites -o o.tsv", 1, "v.vcf: is a VCF, which holds no sequences"),
    ("no.csv -m sites -o o.tsv", 1, "no.csv: no such file"),
    ("foreign.bed -f g.fa -m sites -o o.tsv", 1, "foreign.bed: no contig of this input is in g.fa"),
    ("r.bed -f g.fa -m nowhere/model -o o.tsv", 1, "nowhere/model"),
    ("r.bed -f g.fa -m sites -o no/o.tsv", 1, "no/o.tsv: cannot be written"),
    (
        "over.bed -f g.fa -m bases -o o.bedgraph",
        1,
        "chr1:20-29: has bases in common with chr1:11-20, and a track has one number for a base; join",
    ),
    ("-r 1:1-9 -r 1:9-9 -f g.fa -m bases -o o.bedgraph", 1, "1:9-9: has bases in common with 1:1-9"),
    ("twice.fa -m bases -o o.bedgraph", 1, "twice.fa, line 5: a second sequence 'a'"),
    ("twice.fa -m bases -o o.bedgraph --shard 2/2", 1, "twice.fa, line 5: a second sequence 'a'"),
]


@pytest.mark.parametrize("shard", ["", " --shard 1/2"])
@pytest.mark.parametrize("line", ["header.csv", "header.parquet", "empty", "empty -f g.fa"])
def test_an_empty_part_gives_an_empty_table(run: Run, tmp_path: Path, line: str, shard: str) -> None:
    (tmp_path / "header.csv").write_text("sequence,id\n")
    pq.write_table(pa.table({"sequence": pa.array([], pa.string())}), tmp_path / "header.parquet")
    (tmp_path / "empty").touch()
    result = run(f"{line} -m sites -o o.tsv{shard}")
    assert result.exit_code == 0, result.stderr
    assert "predicted 0 records" in result.stderr
    assert "no re" in result.stderr or shard  # records, or regions


@pytest.mark.parametrize(("line", "code", "said"), BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, line: str, code: int, said: str
) -> None:
    (tmp_path / "v.vcf").write_text("##fileformat=VCFv4.2\n")
    (tmp_path / "foreign.bed").write_text("NC_1\t1\t2\n")
    (tmp_path / "over.bed").write_text("chr1\t19\t29\nchr2\t0\t9\nchr1\t10\t20\n")
    (tmp_path / "twice.fa").write_text(">a\nAC\n>b\nAC\n>a\nGG\n")
    before = {path.name for path in tmp_path.iterdir()}
    result = run(line, stdin=b">a\nAC\n")
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert said in result.stderr
    errors = [text for text in result.stderr.splitlines() if text.startswith("hyena: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} - before <= {"cache"}


def test_the_model_is_the_last_thing_to_be_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_model", lambda spec: pytest.fail("the model was loaded"))
    for line in ("t.csv -o o.tsv", "r.bed -f g.fa -o no/o.tsv", "s.fa.gz -o o.tsv --rc x"):
        assert run(f"{line} -m sites").exit_code in (1, 2)


def test_json_events_hold_the_counts(run: Run) -> None:
    assert run("r.bed -f g.fa -m sites -o o.tsv --log-json log.jsonl -q").exit_code == 0
    events = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    (done,) = [event for event in events if event["event"] == "predict"]
    assert (done["records"], done["failed"], done["bases"]) == (3, {"NO_CONTIG": 1}, 130)


@pytest.mark.parametrize("text", ["sequence\nACGT\nAC42\nNA\nGGC\n", ">a\nACGT\n>b\nAC42\n>c\n>d\nGGC\n"])
def test_a_bad_record_is_a_row_with_a_status(run: Run, text: str) -> None:
    Path("x").write_text(text)
    result = run("x -m sites -o -")
    _, *records = rows(result.stdout)
    assert [record[6] for record in records] == ["OK", "BAD_LETTER", "EMPTY", "OK"]
    assert records[1][7:] == records[2][7:] == ["", "", ""]
    assert result.stderr.count("x: 2 records without a result, the first as '4' ") == 1
