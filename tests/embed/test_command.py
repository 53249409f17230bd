"""`hyena embed` as it is typed: what it writes, what it refuses and what it prints where."""

import gzip
import io
import json
import random
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.embed import command
from hyenacli.inference.embedding import embed
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.readers.records import SequenceRecord
from hyenacli.writers.output_shards import merge_shards
from hyenadna import save_model
from tests import warm
from tests.builders import write_circle
from tests.toys import tiny_model

CHR1 = b"ACGTTGCAAC" * 12
CHR2 = b"GGCATTACAN" * 3
BED = "chr1\t10\t30\tpeak\t0\t-\nchrU\t1\t2\nchr2\t0\t30\nchr1\t10\t30\tpeak\t0\t-\nchr1\t0\t120\n"
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(), path)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Run:
    """Run the command in a directory with a genome, a BED, a FASTA and a model called `model`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "g.fa").write_bytes(b">1 one\n" + CHR1 + b"\n>2\n" + CHR2.lower() + b"\n")
    (tmp_path / "r.bed").write_text(BED)
    (tmp_path / "s.fa.gz").write_bytes(gzip.compress(b">a\nACGT\nAC\n>none\n>a again\nNNNN\n"))

    def invoke(line: str, stdin: bytes | None = None) -> Any:
        return CliRunner().invoke(app, ["embed", *line.split()], input=stdin)

    return invoke


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def sequence(bases: bytes, left: int) -> SequenceRecord:
    return SequenceRecord("x", "x", 0, len(bases) - left, bases=bases, left=left)


def expect(bases: bytes, **recipe: object) -> np.ndarray:
    one = SequenceRecord("x", "x", 0, len(bases), bases=bases)
    (embedded,) = embed(tiny_model(), [one], EmbeddingOptions(**recipe))
    return embedded.vectors[:, 0]


def test_regions_and_flanks_go_around_a_circle(run: Run, tmp_path: Path) -> None:
    circle = bytes(random.Random(1).choices(b"ACGT", k=60))
    (tmp_path / "c.fa").write_bytes(b">MT\n" + circle + b"\n")
    (tmp_path / "c.bed").write_text("chrM\t0\t10\nchrM\t50\t70\nchrM\t60\t70\nchrM\t5\t66\n")
    line = "c.bed -f c.fa -m model -q -o out.parquet --circular chrM --flank"
    write_circle(tmp_path / "c.gb", "MT", circle.decode())
    for flank in (0, 7, 99):
        assert run(f"{line} {flank}").exit_code == 0
        assert run(f"c.bed -f c.gb -m model -q -o gb.parquet --flank {flank}").exit_code == 0
        assert str(pq.read_table("gb.parquet").to_pylist()) == str(pq.read_table("out.parquet").to_pylist())
        table = pq.read_table("out.parquet").to_pylist()
        assert [row["status"] for row in table] == ["OK", "OK", "OUT_OF_RANGE", "OUT_OF_RANGE"]
        for row in table[:2]:
            left = min(flank, 60 - (row["end"] - row["start"]))  # no base is read twice
            bases = (circle * 3)[60 + row["start"] - left : 60 + row["end"]]
            (whole,) = embed(tiny_model(), [sequence(bases, left)], EmbeddingOptions())
            np.testing.assert_allclose(row["embedding"], whole.vectors[0, 0], atol=1e-5)
    result = run("s.fa.gz -m model -o out.tsv --circular chrM")
    assert "--circular: matches names with a genome's" in result.stderr


def test_further_columns_of_a_bed_are_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.fa").write_bytes(b">c\n" + b"ACGT" * 20 + b"\n")
    rows = ["c\t0\t9\ta\t0\t+", "c\t9\t70\tb\t0\t-\t12\tgene x", "d\t0\t9\tc\t0\t.\t7"]
    (tmp_path / "c.bed").write_text("\n".join(rows) + "\n")
    result = run("c.bed -f c.fa -m model -q -o out.parquet")
    assert result.exit_code == 0, result.output
    table = pq.read_table("out.parquet").to_pylist()
    assert [(row["thickStart"], row["thickEnd"]) for row in table] == [("", ""), ("12", "gene x"), ("7", "")]


@pytest.mark.parametrize(
    "content", [b"", b"# nothing\n", gzip.compress(b"", mtime=0)], ids=["empty", "comment", "gzip"]
)
@pytest.mark.parametrize("kind", ["tsv", "parquet", "npz"])
def test_an_empty_part_gives_an_empty_table(run: Run, tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "empty.bed").write_bytes(content)
    lines = ["-f g.fa -m model"] if content.startswith(b"#") else ["-f g.fa -m model", "-m model"]
    for line in lines:
        result = run(f"empty.bed {line} -o out.{kind}")
        assert result.exit_code == 0, result.stderr
        assert "embedded 0 records" in result.stderr
        assert (tmp_path / f"out.{kind}").exists()


def test_a_bed_becomes_a_table_in_input_order(run: Run, tmp_path: Path) -> None:
    result = run("r.bed -f g.fa -m model -o out.parquet")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "matched 2/3 contigs, chr1 read as 1, chr2 read as 2" in result.stderr
    assert "1 of 3 contigs are not in g.fa: chrU (1 record)" in result.stderr
    assert "embedded 4 records, 1 NO_CONTIG: 190 bases in " in result.stderr
    table = pq.read_table("out.parquet")
    got = table.drop_columns(["embedding"]).to_pylist()
    assert [list(row.values()) for row in got] == [
        ["peak", "chr1", 10, 30, "-", 20, "OK"],
        ["chrU:2-2", "chrU", 1, 2, ".", 0, "NO_CONTIG"],
        ["chr2:1-30", "chr2", 0, 30, ".", 30, "OK"],
        ["peak", "chr1", 10, 30, "-", 20, "OK"],
        ["chr1:1-120", "chr1", 0, 120, ".", 120, "OK"],
    ]
    vectors = np.stack(table["embedding"].to_numpy())
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False, False, False]
    np.testing.assert_allclose(vectors[[0]], expect(CHR1[10:30]), atol=1e-5)
    np.testing.assert_allclose(vectors[[2]], expect(CHR2), atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    np.testing.assert_allclose(vectors[[4]], expect(CHR1), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == ["out.parquet"]


def test_the_table_says_how_it_was_made(run: Run) -> None:
    assert run("r.bed -f g.fa -m model -o out.parquet --layer 2 --rc concat --flank 5").exit_code == 0
    schema = pq.read_schema("out.parquet")
    assert schema.field("embedding").type.list_size == 32
    about = json.loads(schema.metadata[b"hyena"])
    assert about["layers"] == [2]
    assert len(about["model_sha256"]) == 64
    assert (about["settings"]["rc"], about["settings"]["flank"]) == ("concat", 5)


def test_sequences_are_embedded_whole(run: Run) -> None:
    result = run("s.fa.gz -m model -o - -q")
    warning = "s.fa.gz: 1 record without a result, the first as the sequence is empty: EMPTY in line "
    assert result.exit_code == 0
    assert warning in result.stderr
    header, *records = rows(result.stdout)
    assert header[:9] == ["id", "chrom", "start", "end", "strand", "n_bases", "status", "e0", "e1"]
    assert [record[:7] for record in records] == [
        ["a", "a", "0", "6", ".", "6", "OK"],
        ["none", "none", "0", "0", ".", "0", "EMPTY"],
        ["a", "a", "0", "4", ".", "4", "OK"],
    ]
    assert records[1][7:] == [""] * 16
    np.testing.assert_allclose(np.array([records[0][7:]], float), expect(b"ACGTAC"), atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_stdin_is_sniffed(run: Run, packed: bool) -> None:
    fasta, bed = b">x\nACGTACGT\n", b"# regions\n1\t0\t8\n"
    one = run("- -m model -o - -q", stdin=gzip.compress(fasta) if packed else fasta)
    other = run("- -f g.fa -m model -o - -q", stdin=gzip.compress(bed) if packed else bed)
    assert (rows(one.stdout)[1][0], rows(other.stdout)[1][0]) == ("x", "1:1-8")


def test_regions_on_the_command_line_count_from_one(run: Run) -> None:
    result = run("-r 1:11-30 -r 2 -f g.fa -m model -o - -q --pool last")
    assert [row[:7] for row in rows(result.stdout)[1:]] == [
        ["1:11-30", "1", "10", "30", ".", "1", "OK"],
        ["2:1-30", "2", "0", "30", ".", "1", "OK"],
    ]


def test_without_pooling_every_base_is_a_row(run: Run) -> None:
    result = run("-r 1:5-7 -f g.fa -m model -o - -q --pool none --layer all")
    header, *records = rows(result.stdout)
    assert [record[:7] for record in records] == [
        ["1:5-7", "1", str(start), str(start + 1), ".", "1", "OK"] for start in (4, 5, 6)
    ]
    assert [header[7], header[23], header[39]] == ["l1_e0", "l2_e0", "e0"]
    with torch.inference_mode():
        out = tiny_model()(torch.tensor([[10, 9, 8]][:1]), hidden_states=True)
    wanted = np.concatenate([states[0].numpy() for states in (*out.hidden_states, out.hidden)], axis=1)
    assert CHR1[4:7] == b"TGC"
    np.testing.assert_allclose(np.array([record[7:] for record in records], float), wanted, atol=1e-5)


@pytest.mark.parametrize("flags", ["-b 1", "-b 2", "-@ 1", "-b 64"])
def test_batches_and_threads_change_nothing(run: Run, flags: str) -> None:
    threads = torch.get_num_threads()
    line = "r.bed -f g.fa -m model -q --rc mean --layer all --window 48 --stride 30"
    assert run(f"{line} -o one.npz").exit_code == 0
    assert run(f"{line} -o other.npz {flags}").exit_code == 0
    torch.set_num_threads(threads)
    with np.load("one.npz") as one, np.load("other.npz") as other:
        for name in ("embedding_1", "embedding_2", "embedding"):
            np.testing.assert_allclose(one[name], other[name], atol=1e-4)


def test_bfloat16_is_close(run: Run) -> None:
    assert run("s.fa.gz -m model -q -o one.npz").exit_code == 0
    assert run("s.fa.gz -m model -q -o other.npz --dtype bfloat16").exit_code == 0
    with np.load("one.npz") as one, np.load("other.npz") as other:
        np.testing.assert_allclose(one["embedding"], other["embedding"], atol=0.1)
        assert not np.array_equal(one["embedding"], other["embedding"], equal_nan=True)


BAD = [
    # arguments: exit 2
    ("-m model -o o.tsv", 2, "nothing to embed; name an INPUT, or regions with -r"),
    ("r.bed -r 1:1-2 -f g.fa -m model -o o.tsv", 2, "-r stands instead of an INPUT; give one of them"),
    ("-r 1:1-2 -m model -o o.tsv", 2, "-r names regions of a genome; give the genome with -f"),
    ("r.bed -m model -o o.tsv", 2, "r.bed: is a BED; give its genome with -f"),
    ("s.fa.gz -f g.fa -m model -o o.tsv", 2, "s.fa.gz: is a FASTA, and -f gives the genome of a BED"),
    (
        "s.fa.gz --flank 3 -m model -o o.tsv",
        2,
        "--flank: sequences are read whole; leave it out",
    ),
    ("v.vcf -f g.fa -m model -o o.tsv", 2, "v.vcf: is a VCF, and -f gives the genome of a BED"),
    (
        "c.gb -f g.fa -m model -o o.tsv",
        2,
        "c.gb: is a GenBank file, and -f gives the genome of a BED; choose fea",
    ),
    (
        "c.gb -m model -o o.tsv --feature CDS",
        2,
        "--feature: features are regions of a genome; give the genome",
    ),
    ("-r 1:1-9 -f g.fa -m model -o o.tsv --attributes x", 2, "-r: names regions, not features; leave out"),
    ("r.bed -f g.fa -m model -o o.tsv --color-by chrom", 2, "--color-by: is of a map; add --map FILE"),
    (
        "r.bed -f g.fa -m model -o o.tsv --map no/m.svg",
        1,
        "no/m.svg: cannot be written: no such file or directory; create the directory first",
    ),
    ("r.bed -f g.fa -m model -o o.tsv --map m.png", 2, "m.png: a map is .svg or .html"),
    (
        "r.bed -f g.fa -m model -o o.tsv --map m.svg --pool none",
        2,
        "--pool none: a map has a point per",
    ),
    (
        "r.bed -f g.fa -m model -o o.tsv --map m.svg --shard 1/2",
        2,
        "--map: a map is of all records",
    ),
    (
        "r.bed -f g.fa -m model -o o.tsv --map m.svg --color-by gene",
        2,
        "--color-by: no column 'gene'",
    ),
    ("r.bed -f g.fa -m model -o o.txt", 2, "o.txt: the suffix names no table type"),
    ("r.bed -f g.fa -m model -o o.tsv --pool sum", 2, "--pool: unknown pooling 'sum'; use mean, last, max"),
    ("r.bed -f g.fa -m model -o o.tsv --layer 0", 2, "--layer: unknown layer '0'"),
    (
        "r.bed -f g.fa -m model -o o.tsv --layer 3",
        2,
        "--layer: the model has no block 3; its blocks are 1 to 2",
    ),
    ("r.bed -f g.fa -m model -o o.tsv --rc both", 2, "Invalid value for '--rc': 'both' is not one of"),
    (
        "r.bed -f g.fa -m model -o o.tsv --window 900",
        2,
        "the model takes at most 64 bases, not 900",
    ),
    ("r.bed -f g.fa -m model -o o.tsv --window 9 --stride 10", 2, "--stride: a stride of 10 skips bases"),
    ("r.bed -f g.fa -m model -o o.tsv --stride 65", 2, "--stride: a stride of 65 skips bases"),
    ("r.bed -f g.fa -m model -o o.tsv -b 0", 2, "--batch-size: unknown batch size '0'"),
    (
        "r.bed -f g.fa -m model -o o.tsv --contig-style ucsc",
        2,
        "'--contig-style': 'ucsc' is not one of",
    ),
    ("r.bed -m model -o o.tsv --contig-style exact", 2, "--contig-style: matches names with a genome's; lea"),
    ("r.bed -f g.fa -m model -o o.tsv --dtype half", 2, "Invalid value for '--dtype': 'half' is not one of"),
    ("r.bed -f g.fa -m model -o o.tsv --device gpu", 2, "--device: unknown device 'gpu'"),
    ("r.bed -f g.fa -m model -o -O npz", 2, ""),
    # data: exit 1
    ("no.bed -f g.fa -m model -o o.tsv", 1, "no.bed: no such file"),
    ("text -m model -o o.tsv", 1, "text: no column 'sequence'"),
    ("r.bed -f no.fa -m model -o o.tsv", 1, "no.fa: "),
    ("foreign.bed -f g.fa -m model -o o.tsv", 1, "foreign.bed: no contig of this input is in g.fa"),
    ("r.bed -f g.fa -m model -o o.tsv --contig-style exact", 1, "r.bed: no contig of this input is in g.fa"),
    ("-r 3:1-2 -f g.fa -m model -o o.tsv", 1, "no contig '3'"),
    ("-r 1:121-200 -f g.fa -m model -o o.tsv", 1, "1 has 120 bases"),
    ("r.bed -f g.fa -m model -o no/o.tsv", 1, "no/o.tsv: cannot be written: no such file or directory"),
    ("r.bed -f g.fa -m empty -o o.tsv", 1, "empty"),
    ("r.bed -f g.fa -m g.fa -o o.tsv", 1, "g.fa"),
    ("r.bed -f g.fa -m nowhere/model -o o.tsv", 1, "nowhere/model"),
]


@pytest.mark.parametrize(("line", "code", "said"), BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, line: str, code: int, said: str
) -> None:
    (tmp_path / "v.vcf").write_text("##fileformat=VCFv4.2\n")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("Dear genome,\n")
    (tmp_path / "c.gb").write_text("LOCUS       c1  9 bp  DNA  linear  UNK\n")
    (tmp_path / "foreign.bed").write_text("NC_1\t1\t2\n")
    before = {path.name for path in tmp_path.iterdir()}
    result = run(line)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert said in result.stderr
    errors = [text for text in result.stderr.splitlines() if text.startswith("hyena: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} - before <= {"cache"}


def test_the_model_is_the_last_thing_to_be_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_model", lambda spec: pytest.fail("the model was loaded"))
    for line in (
        "foreign.bed -f g.fa -o o.tsv",
        "r.bed -f g.fa -o no/o.tsv",
        "r.bed -f g.fa -o o.tsv --pool x",
    ):
        Path("foreign.bed").write_text("NC_1\t1\t2\n")
        assert run(f"{line} -m model").exit_code in (1, 2)


def test_json_events_hold_the_counts(run: Run) -> None:
    assert run("r.bed -f g.fa -m model -o o.tsv --log-json log.jsonl -q").exit_code == 0
    events = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    (done,) = [event for event in events if event["event"] == "embed"]
    assert (done["records"], done["failed"], done["bases"]) == (4, {"NO_CONTIG": 1}, 190)


def test_head_ends_it_silently(run: Run, tmp_path: Path) -> None:
    fasta = io.BytesIO()
    for i in range(3000):
        fasta.write(b">s%d\nACGTACGTAC\n" % i)
    (tmp_path / "many.fa").write_bytes(fasta.getvalue())
    line = [warm.command(), "embed", "many.fa", "-m", "model", "-o", "-", "-q"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"id\tchrom\t")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("text", "line", "statuses"),
    [
        (">a\nACGT\n>b\nAC*T\n>c\n>d\nGG\n", "x -m model", ["OK", "BAD_LETTER", "EMPTY", "OK"]),
        (
            "1\t1\t2\n2\t0\t31\n2\t3\t3\n2\t0\t30\n",
            "x -f g.fa -m model --flank 3",
            ["OK", "OUT_OF_RANGE", "EMPTY", "OK"],
        ),
    ],
)
def test_a_bad_record_is_a_row_with_a_status(run: Run, text: str, line: str, statuses: list[str]) -> None:
    Path("x").write_text(text)
    result = run(f"{line} -o -")
    _, *records = rows(result.stdout)
    assert [record[6] for record in records] == statuses
    assert [set(record[7:]) == {""} for record in records] == [status != "OK" for status in statuses]
    assert result.stderr.count("x: 2 records without a result, the first as ") == 1
    assert f"embedded 2 records, 1 {statuses[1]}, 1 {statuses[2]}: " in result.stderr


def test_a_table_is_mapped_with_a_probe_of_its_column(run: Run, tmp_path: Path) -> None:
    draw = random.Random(0)
    kinds = {"poor": b"AAAT", "rich": b"CCCG", "rare": b"ACGT"}
    lines = ["sequence,kind,score"]
    for kind, letters in kinds.items():
        for _ in range(5 if kind == "rare" else 30):
            bases = bytes(draw.choices(letters, k=40)).decode()
            lines.append(f"{bases},{kind},{bases.count('C') + bases.count('G') + draw.random()}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    result = run("t.csv -m model -o t.parquet --map t.html --color-by kind --map-method tsne")
    assert result.exit_code == 0, result.output
    assert re.search(r"kind: weighted F1 (1.000|0.9\d\d) of the embeddings, 1.000 of k-mers", result.stderr)
    assert pq.read_table("t.parquet")["kind"].to_pylist() == [line.split(",")[1] for line in lines[1:]]
    page = Path("t.html").read_text()
    assert page.count("<rect ") >= 65
    assert "<title>65: rare</title>" in page
    assert re.search(r"<td>rare</td><td class=\"n\">5</td><td class=\"n\">-</td>", page)
    result = run("t.csv -m model -o t.parquet --map t.svg --color-by score")
    assert "score: R2 0.9" in result.stderr
    # a colour bar is an image in the figure
    assert [text in Path("t.svg").read_text() for text in ("component 1 (", "<image ")] == [True, True]
    result = run("t.csv -m model -o t.parquet --map t.svg")
    assert (result.exit_code, "of k-mers" in result.stderr) == (0, False)
    assert [text in Path("t.svg").read_text() for text in ("component 1 (", "<image ")] == [True, False]


def test_a_map_shows_what_an_annotation_says_of_its_genes(run: Run, tmp_path: Path) -> None:
    line = "1\tx\tgene\t{}\t{}\t.\t+\t.\tID=g{};biotype={}\n"
    genes = [(i, i + 20, i, "long" if i % 2 else "short") for i in range(1, 90, 4)]
    (tmp_path / "a.gff").write_text("".join(line.format(*gene) for gene in genes))
    result = run("a.gff -f g.fa -m model -o a.tsv --map a.svg --color-by biotype")
    assert result.exit_code == 0, result.output
    assert "--color-by biotype: too few records of two classes for a probe" in result.stderr
    assert rows(Path("a.tsv").read_text())[0][7:9] == ["type", "biotype"]
    result = run("-r 1:1-20 -f g.fa -m model -o a.tsv --map b.svg")
    assert (result.exit_code, "1 vectors are too few" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("flags", "columns"),
    [("c.bed", ["thickStart", "thickEnd"]), ("c.gff --attributes biotype", ["type", "biotype"])],
)
@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_shards_keep_further_columns(
    run: Run, tmp_path: Path, flags: str, columns: list[str], kind: str
) -> None:
    lines = ["1\t0\t9\ta\t0\t+", "1\t9\t70\tb\t0\t-\t12\tgene x", "X\t0\t9\tc\t0\t.\t7"]
    (tmp_path / "c.bed").write_text("\n".join(lines) + "\n")
    gene = "1\tx\tgene\t{0}\t{1}\t.\t+\t.\tID=g{0};biotype=kind {0}\n"
    (tmp_path / "c.gff").write_text("".join(gene.format(i, i + 20) for i in (1, 5, 9)))
    for target, shard in (("whole", ""), ("1", "--shard 1/2"), ("2", "--shard 2/2")):
        result = run(f"{flags} -f g.fa -m model -q -o {target}.{kind} {shard}")
        assert result.exit_code == 0, result.output
    merge_shards([Path(f"2.{kind}"), Path(f"1.{kind}")], Path(f"merged.{kind}"))
    whole, merged = (read_columns(Path(f"{name}.{kind}")) for name in ("whole", "merged"))
    assert list(merged) == list(whole)
    assert {name: merged[name] for name in ("id", *columns)} == {
        name: whole[name] for name in ("id", *columns)
    }
    assert len(set(whole[columns[1]])) > 1


def read_columns(path: Path) -> dict[str, list[Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    header, *lines = rows(path.read_text())
    return dict(zip(header, map(list, zip(*lines, strict=True)), strict=True))
