import csv
import gzip
import io
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.readers.genome import Genome
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.regions import Reference
from hyenacli.readers.tables import Columns, LabelledRecord
from hyenacli.readers.text import MISSING, Source
from tests.builders import Compression, random_dna, write_bed, write_bytes, write_fasta

CSV = b"id,sequence,label\na,ACGT,x\nb,ggnu,y\n"
EXPECTED = [("a", b"ACGT", "x"), ("b", b"GGNT", "y")]
GENOME = random_dna(100, seed=1)


def read(*sources: Source, columns: Columns | None = None, labelled: bool = True) -> list[LabelledRecord]:
    with open_labelled(sources, columns, labelled=labelled) as rows:
        return list(rows)


def plain(records: list[LabelledRecord]) -> list[tuple[object, ...]]:
    return [(r.id, r.sequence, r.label) for r in records]


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return Reference(Genome(write_fasta(tmp_path / "g.fa", [("chr1", GENOME), ("chr2", GENOME)])))


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_a_table(tmp_path: Path, compression: Compression) -> None:
    path = write_bytes(tmp_path / "a.csv", CSV, compression)
    records = read(path)
    assert plain(records) == EXPECTED
    assert [(r.file, r.line, r.status, r.group, r.split) for r in records] == [
        (str(path), 2, "OK", "", ""),
        (str(path), 3, "OK", "", ""),
    ]


@pytest.mark.parametrize(
    "text",
    [
        CSV.replace(b",", b"\t"),
        CSV.replace(b",", b";"),
        CSV.replace(b",", b" "),
        CSV.replace(b"\n", b"\r\n") + b"\r\n\r\n",
        b"\xef\xbb\xbf" + CSV.rstrip(),
        b"# made by hand\n\n#" + CSV,
        b"label,ID,Sequence,more\nx,a,ACGT,1\ny,b,ggnu,\n",
        b'"label","sequence","id"\n"x"," ACGT ","a"\n"y","ggnu","b"\n',
    ],
    ids=["tabs", "semicolons", "blanks", "CRLF", "BOM", "comments", "other names and order", "quotes"],
)
def test_spellings_of_a_table(tmp_path: Path, text: bytes) -> None:
    assert plain(read(write_bytes(tmp_path / "a", text))) == EXPECTED


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (b"ACGT\t0.5\nGGNT\t-1e3\n", Columns()),
        (b"0.5,ACGT\n-1e3,GGNT\n", Columns()),
        (b"ACGT 0.5\nGGNT -1e3", Columns()),
        (b"TTTT\t0.5\tACGT\nTTTT\t-1e3\tGGNT\n", Columns(sequence="3", labels=("2",))),
        (b"x\t9\tACGT\t0.5\ny\t9\tGGNT\t-1e3\n", Columns(labels=("4",))),
    ],
    ids=["tabs", "label first", "blanks", "numbers", "sequence by content"],
)
def test_tables_without_names(tmp_path: Path, text: bytes, columns: Columns) -> None:
    records = read(write_bytes(tmp_path / "a", text), columns=columns)
    assert plain(records) == [("1", b"ACGT", "0.5"), ("2", b"GGNT", "-1e3")]
    assert [r.line for r in records] == [1, 2]


def test_columns_by_name(tmp_path: Path) -> None:
    text = b"name,seq,target,chrom,fold\nq,ACGT,1,chr9,dev\nr,ACGA,0,chr2,\n"
    columns = Columns("seq", ("target",), id="name", group="CHROM", split="5")
    q, r = read(write_bytes(tmp_path / "a", text), columns=columns)
    assert (q.id, q.label, q.group, q.split) == ("q", "1", "chr9", "valid")
    assert (r.id, r.label, r.group, r.split) == ("r", "0", "chr2", "")


@pytest.mark.parametrize("asked", [("y_*",), ("y_0", "y_1", "y_2"), ("3-5",), ("y_1", "3-5")])
def test_many_labels(tmp_path: Path, asked: tuple[str, ...]) -> None:
    path = write_bytes(tmp_path / "a", b"id,sequence,y_0,y_1,y_2\na,ACGT,1,,0\n")
    with open_labelled([path], Columns(labels=asked)) as rows:
        names, [record] = rows.label_names, list(rows)
    assert sorted(names) == ["y_0", "y_1", "y_2"]
    assert dict(zip(names, record.label or "", strict=True)) == {"y_0": "1", "y_1": "", "y_2": "0"}


def test_a_split_column_is_taken_where_there_is_one(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a", b"sequence,label,split\nACGT,1,train\nACGA,0,Test\n")
    assert [r.split for r in read(path)] == ["train", "test"]
    with open_labelled([path], split="valid") as rows:
        assert [r.split for r in rows] == ["train", "test"]
    with open_labelled([write_bytes(path, CSV)], split="valid") as rows:
        assert [r.split for r in rows] == ["valid", "valid"]


def test_long_cells_and_the_csv_limit_of_others(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    bases = random_dna(300_000)
    path = write_bytes(tmp_path / "a", f'sequence,label\n"{bases}","0,1"\n'.encode())
    assert plain(read(path)) == [("1", bases.encode(), "0,1")]
    assert csv.field_size_limit() == limit


def test_records_without_labels(tmp_path: Path) -> None:
    table = write_bytes(tmp_path / "a.tsv", b"id\tsequence\nx\tACGT\ny\t\n")
    records = read(table, labelled=False)
    assert plain(records) == [("x", b"ACGT", None), ("y", b"", None)]
    assert [r.status for r in records] == ["OK", "EMPTY"]
    bare = write_bytes(tmp_path / "bare", b"ACGT\nGGNT\n")
    assert plain(read(bare, labelled=False)) == [("1", b"ACGT", None), ("2", b"GGNT", None)]
    fasta = write_fasta(tmp_path / "a.fa", [("sp|P1|X more", "ACGT")])
    assert plain(read(fasta, labelled=False)) == [("sp|P1|X", b"ACGT", None)]
    assert plain(read(write_bytes(table, CSV), labelled=False)) == EXPECTED


@pytest.mark.parametrize("how", ["file", "stdin", "gzip"])
def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    n = 150
    bases = [random_dna(9, seed=i) for i in range(n)]
    table = {"sequence": bases, "label": [i % 2 == 0 for i in range(n)], "split": ["val"] * n}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({**table, "unused": [{"deep": [1]}] * n}), path)
    source: Source = path
    if how == "stdin":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        source = "-"
    elif how == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    with open_labelled([source]) as rows:
        assert rows.kinds == ("parquet",)
        records = list(rows)
    assert [r.sequence.decode() for r in records] == bases
    assert [(r.id, r.label, r.split) for r in records[:2]] == [("1", "1", "valid"), ("2", "0", "valid")]
    assert [(r.line, r.unit) for r in records[-1:]] == [(150, "row")]


def test_values_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "sequence": [b"ACG", b"TTT"],
        "y": [0.5, None],
        "z": [[0, 1.5, None], None],
        "c": [["E", "I"], []],
    }
    pq.write_table(pa.table(columns), path)
    assert [r.label for r in read(path, columns=Columns(labels=("y",)))] == ["0.5", ""]
    first, second = (r.label for r in read(path, columns=Columns(labels=("z",))))
    assert isinstance(first, np.ndarray)
    np.testing.assert_array_equal(first, np.float32([0, 1.5, np.nan]))
    assert second == ""
    assert read(path, columns=Columns(labels=("c",)))[0].label == "E,I"
    assert [r.label for r in read(path, columns=Columns(labels=("y", "c")))] == [("0.5", "E,I"), ("", "")]


def test_parquet_that_is_none_or_lacks_a_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"sequence": ["ACGT", "AC1T"], "y": [0, 1]}), path)
    with pytest.raises(
        UserError, match=r"no column 'label'; the columns are sequence, y: name one with --la"
    ):
        read(path)
    with (
        open_labelled([path], Columns(labels=("y",))) as rows,
        pytest.raises(UserError, match=r"a.parquet, row 2: '1' \(letter 3 of the sequence\) is not a nucl"),
    ):
        rows.load()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read as Parquet"):
        read(path)


def test_fasta_with_labels_in_headers(tmp_path: Path) -> None:
    records = [("a|x", "ACGT"), ("b | more|y", "ggnu")]
    path = write_fasta(tmp_path / "a.fa", records, compression="gzip")
    found = read(path)
    assert plain(found) == EXPECTED
    assert [r.line for r in found] == [1, 3]
    write_fasta(path, [("a|x", "ACGT"), ("b", "ACGT")])
    with pytest.raises(
        UserError, match=r"a.fa, line 3: no label in 'b'; write >name\|label, or give one FASTA"
    ):
        read(path)


def test_a_split_may_follow_the_label_in_a_header(tmp_path: Path) -> None:
    names = ["s1|1|training", "a|b|0|testing", "c x|y|1 | Valid", "train|1", "d|training", "e|1|other"]
    records = read(write_fasta(tmp_path / "a.fa", [(name, "ACGT") for name in names]))
    assert [(r.id, r.label, r.split) for r in records] == [
        ("s1", "1", "train"),
        ("a|b", "0", "test"),
        ("c", "1", "valid"),
        ("train", "1", ""),
        ("d", "training", ""),
        ("e|1", "other", ""),
    ]


def test_a_file_per_class(tmp_path: Path, reference: Reference) -> None:
    a = write_fasta(tmp_path / "a.fa", [("a|z", "ACGT")])
    b = write_fasta(tmp_path / "b=b.fa", [("b", "GGNT")])
    assert plain(read(f"x={a}", f"y={b}")) == [("a|z", b"ACGT", "x"), ("b", b"GGNT", "y")]
    assert plain(read(f"x={a}", f"x={a}"))[1] == ("a|z", b"ACGT", "x")
    bed = write_bed(tmp_path / "a.bed", [("chr1", 0, 4)])
    bare = write_bytes(tmp_path / "bare", b"ACGT\n")
    with open_labelled([f"x={bed}", f"y={bare}"], reference=reference) as rows:
        assert plain(list(rows)) == [("chr1:1-4", GENOME[:4].encode(), "x"), ("1", b"ACGT", "y")]
    with pytest.raises(UsageError, match=r"'=a\.fa' is not label=FILE"):
        read("=a.fa")
    with pytest.raises(UserError, match=r"line 1: no label in 'b'"):
        read(b)


def test_regions_with_labels(tmp_path: Path, reference: Reference) -> None:
    rows = [
        ("chr1", 0, 10, "p", "0.5", "+", "u"),
        ("2", 5, 25, "q", "1", "-", "v"),
        ("chr9", 0, 5, "r", "0", ".", "w"),
    ]
    bed = write_bed(tmp_path / "a.bed", rows, compression="gzip")
    for asked in ("score", "5"):
        with open_labelled([bed], Columns(labels=(asked,), group="7"), reference=reference) as opened:
            assert opened.label_names == ("score",)
            p, q, r = opened
    assert (p.id, p.sequence, p.label, p.group) == ("p", GENOME[:10].encode(), "0.5", "u")
    assert (q.sequence, q.label, q.group) == (reverse_complement(GENOME[5:25].encode()), "1", "v")
    assert q.region is not None
    assert (q.region.contig, q.region.start, q.line) == ("chr2", 5, 2)
    assert (r.sequence, r.status) == (b"", "NO_CONTIG")
    with open_labelled([bed], Columns(labels=("score",)), reference=reference) as opened:
        assert [r.id for r in opened.load()] == ["p", "q"]
    with pytest.raises(
        UserError, match="no column 'label'; the columns are chrom, start, end, name, score, str"
    ):
        open_labelled([bed], reference=reference)
    with pytest.raises(UsageError, match="is a BED; give its genome"):
        open_labelled([bed])


def test_a_region_without_the_label_column(tmp_path: Path, reference: Reference) -> None:
    bed = write_bed(tmp_path / "a.bed", [("chr1", 0, 10, "p", 1), ("chr1", 0, 10)])
    with (
        open_labelled([bed], Columns(labels=("score",)), reference=reference) as rows,
        pytest.raises(UserError, match="line 2: 3 columns, but column 5 is needed"),
    ):
        list(rows)


def write_bigwig(path: Path, rows: list[tuple[str, int, int, float]]) -> Path:
    pybigtools = pytest.importorskip("pybigtools")
    pybigtools.open(f"{path}.bw", "w").write({"1": 32, "chrX": 9}, iter(sorted(rows)))
    return Path(f"{path}.bw").rename(path)


@pytest.mark.parametrize("write", [write_bed, write_bigwig])
def test_numbers_over_regions(tmp_path: Path, reference: Reference, write: Any) -> None:
    graph = write(
        tmp_path / "a.bg", [("1", 20, 30, 2.5), ("1", 0, 4, 1.0), ("1", 4, 8, -1.0), ("chrX", 0, 9, 7.0)]
    )
    rows = [
        ("chr1", 2, 9, "p", 0, "+"),
        ("chr1", 2, 9, "q", 0, "-"),
        ("chr2", 0, 3),
        ("chr1", 10, 20),
        ("chr1", 25, 32),
    ]
    bed = write_bed(tmp_path / "a.bed", rows)
    with open_labelled([bed], reference=reference, signal=graph) as opened:
        assert opened.label_names == ("signal",)
        tracks = [r.label for r in opened]
    nan = np.nan
    expected = [
        [1, 1, -1, -1, -1, -1, nan],
        [nan, -1, -1, -1, -1, 1, 1],
        [nan] * 3,
        [nan] * 10,
        [2.5] * 5 + [nan] * 2,
    ]
    for track, wanted in zip(tracks, expected, strict=True):
        assert isinstance(track, np.ndarray)
        assert track.dtype == np.float32
        np.testing.assert_array_equal(track, np.float32(wanted))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("chr1", 0, 5, 1), ("chr1", 4, 6, 2)], "line 2: covers a base that line 1 covers too"),
        (
            [("chr1", 0, 5, "x")],
            "line 1: 'x' is not a number; a bedGraph has contig, start, end and a number",
        ),
        ([("chr1", 0, 5)], "line 1: there is no column 4"),
        ([("chr7", 0, 5, 1)], "no contig of this input is in"),
    ],
)
def test_what_is_no_bedgraph(
    tmp_path: Path, reference: Reference, rows: list[tuple[object]], message: str
) -> None:
    bed = write_bed(tmp_path / "a.bed", [("chr1", 0, 5)])
    with pytest.raises(UserError, match=message):
        open_labelled([bed], reference=reference, signal=write_bed(tmp_path / "a.bg", rows))


def test_a_damaged_bigwig(tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = write_bed(tmp_path / "a.bed", [("chr1", 0, 5)])
    path = write_bigwig(tmp_path / "a.bw", [("1", 0, 4, 1.0)])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"a\.bw: the bigWig is damaged or cut short"):
        open_labelled([bed], reference=reference, signal=path)
    monkeypatch.setitem(sys.modules, "pybigtools", None)
    with pytest.raises(UserError, match=r"a bigWig needs pybigtools; pip install pybigtools"):
        open_labelled([bed], reference=reference, signal=path)


def test_a_bedgraph_needs_regions(tmp_path: Path, reference: Reference) -> None:
    graph = write_bed(tmp_path / "a.bg", [("chr1", 0, 5, 1)])
    with pytest.raises(UserError, match=r"a\.csv: a bedGraph has labels for regions only"):
        open_labelled([write_bytes(tmp_path / "a.csv", CSV)], reference=reference, signal=graph)


def benchmark(folder: Path) -> Path:
    for split, kind, name in [
        ("train", "positive", "10"),
        ("train", "positive", "9"),
        ("train", "negative", "1"),
        ("test", "positive", "3"),
    ]:
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
        write_bytes(folder / split / kind / f"{name}.txt", b"acgt\nAC\n", "gzip" if name == "3" else "plain")
    return folder


def test_a_folder_of_classes(tmp_path: Path) -> None:
    folder = benchmark(tmp_path / "gb")
    (folder / "train" / "positive" / "notes.md").write_text("not a sequence")
    records = read(folder)
    assert [(r.id, r.label, r.split) for r in records] == [
        ("test/positive/3", "positive", "test"),
        ("train/negative/1", "negative", "train"),
        ("train/positive/9", "positive", "train"),
        ("train/positive/10", "positive", "train"),
    ]
    assert {r.sequence for r in records} == {b"ACGTAC"}
    with open_labelled([folder / "train"], split="train") as rows:
        assert Counter((r.label, r.split) for r in rows) == {
            ("positive", "train"): 2,
            ("negative", "train"): 1,
        }


def test_folders_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no sequences; a folder of labelled sequences has train/<class>/\*.txt"
    ):
        read(tmp_path)
    folder = benchmark(tmp_path / "gb")
    (folder / "raw").mkdir()
    with pytest.raises(UserError, match="has splits and also raw"):
        read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"sequence,target,x\nACGT,1,2\n",
            "no column 'label'; the columns are sequence, target, x: name one with",
        ),
        (
            b"seq,label\nACGA1,1\n",
            "no column 'sequence'; the columns are seq, label: name one with --sequence-col",
        ),
        (CSV + b"c,ACGT\n", "line 4: 2 columns where the table has 3; separate all lines' columns alike"),
        (CSV + b'c,"ACGT,x\n', "line 4: cannot be read as a table: unexpected end of data"),
        (CSV + b"c,ACGT,\xff\n", "line 4: the line is not UTF-8"),
        (CSV.replace(b"\n", b"\r", 1), "line 1: a carriage return inside the line"),
        (b"sequence,label,split\nACGT,1,trian\n", "line 2: split 'trian' is none of train, valid and test"),
        (
            b"sequence,label,label\nACGT,1,2\n",
            "columns 2, 3 are all called 'label'; rename all but one, or give its number with --label-column",
        ),
        (b"id,sequence,label,id\na,ACGT,1,b\n", "columns 1, 4 are all called 'id'; rename all but one"),
        (b"# nothing\n\n", "no rows"),
        (b"ACGT\t1\t2\n", "no column 'label'; the columns are column1, column2, column3"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "a.csv", text)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_number_chooses_between_columns_of_the_same_name(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.csv", b"sequence,label,label\nACGT,1,2\n")
    assert [record.label for record in read(path, columns=Columns(labels=("3",)))] == ["2"]
    with pytest.raises(UserError, match="columns 2, 3 are all called 'label'"):
        read(path, columns=Columns(labels=("lab*",)))


def test_columns_asked_for_by_name_must_be_there(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.csv", CSV)
    for field in ("id", "group", "split"):
        with pytest.raises(UserError, match=f"no column 'zzz'; .* name one with --{field}-column"):
            read(path, columns=Columns(**{field: "zzz"}))


def test_a_vcf_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a VCF, which holds no sequences"):
        read(write_bytes(tmp_path / "a", b"##fileformat=VCFv4.2\n"))


def test_loading_refuses_what_cannot_be_learnt_from(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.csv", CSV + b"c,,x\n")
    with open_labelled([path]) as rows, pytest.raises(UserError, match="line 4: the sequence is empty"):
        rows.load()
    with (
        open_labelled([write_bytes(path, b"sequence,label\n")]) as rows,
        pytest.raises(UserError, match="no rec"),
    ):
        rows.load()
    other = write_bytes(tmp_path / "b.csv", CSV.replace(b"label", b"Label"))
    with pytest.raises(UserError, match=r"b.csv: the label columns are Label, but label in .*a.csv"):
        read(path, other)


INDEX = {
    "gb_human_enhancers_cohn_testsplit": (6948, "positive negative"),
    "gb_part_human_ensembl_regulatory_test": (717, "enhancer ocr promoter"),
    "gb_part_human_ensembl_regulatory_train": (2817, "enhancer ocr promoter"),
    "gb_part_human_ocr_ensembl_test": (347, "positive negative"),
    "gb_part_human_ocr_ensembl_train": (1439, "positive negative"),
    "gue_emp_H3_dev": (1497, "0 1"),
    "gue_emp_H3_test": (1497, "0 1"),
    "gue_emp_H4_dev": (1461, "0 1"),
    "gue_emp_H4_test": (1461, "0 1"),
    "gue_mouse2_dev": (328, "0 1"),
    "gue_mouse2_test": (328, "0 1"),
    "gue_mouse2_train": (2620, "0 1"),
    "gue_prom_300_tata_dev": (613, "0 1"),
    "gue_prom_300_tata_test": (613, "0 1"),
    "gue_prom_300_tata_train": (4904, "0 1"),
    "gue_splice_dev": (4562, "0 1 2"),
    "gue_splice_test": (4562, "0 1 2"),
    "gue_tf0_dev": (1000, "0 1"),
    "gue_tf0_test": (1000, "0 1"),
    "gue_tf0_train": (32378, "0 1"),
}


def test_real_tables(shared: Path) -> None:
    folder = shared / "data" / "labelled"
    found = {}
    for path in sorted(folder.glob("*.csv.gz")):
        columns = Columns(labels=("target" if "cohn" in path.name else "label",))
        records = read(path, columns=columns)
        found[path.name.removesuffix(".csv.gz")] = len(records), {r.label for r in records}
    assert found == {name: (n, set(classes.split())) for name, (n, classes) in INDEX.items()}


def test_real_fasta_per_class_and_real_numbers(shared: Path) -> None:
    folder = shared / "data" / "labelled"
    names = ("enhancer", "non_enhancer")
    for split, n in (("train", 1484), ("test", 200)):
        records = read(*(f"{name}={folder}/ienhancer2L/{name}_{split}.fa.gz" for name in names))
        assert Counter(r.label for r in records) == dict.fromkeys(names, n)
        assert {len(r.sequence) for r in records} == {200}
    with open_labelled([folder / "yeast_terminators_expression.txt.gz"]) as rows:
        assert (rows.kinds, rows.label_names) == (("table",), ("column2",))
        values = [float(str(r.label)) for r in rows if len(r.sequence) == 150]
    assert len(values) == 14172
    assert values[0] == 4.9528


def test_real_regions_are_the_sequences_of_the_tables(shared: Path) -> None:
    data = shared / "data"
    reference = Reference(Genome(data / "genomes" / "yeast_R64.fa.gz"))
    bed = data / "annotation" / "yeast_emp_H3_H4_windows_R64.bed.gz"
    table = {f"H3|dev|{r.line - 2}": r for r in read(data / "labelled" / "gue_emp_H3_dev.csv.gz")}
    with open_labelled([bed], Columns(labels=("score",)), reference=reference) as rows:
        mine = [r for r in rows if r.id.startswith("H3|dev")]
    assert len(mine) == 1442
    assert all((table[r.id].sequence, table[r.id].label) == (r.sequence, r.label) for r in mine)


@pytest.mark.parametrize(
    ("columns", "flag"),
    [
        (Columns(sequence="seq"), "--sequence-column"),
        (Columns(labels=("kind",)), "--label-column"),
        (Columns(id="name"), "--id-column"),
        (Columns(group="family"), "--group-column"),
        (Columns(split="fold"), "--split-column"),
    ],
)
def test_columns_of_what_has_none_are_refused(tmp_path: Path, columns: Columns, flag: str) -> None:
    fasta = write_fasta(tmp_path / "a.fa", [("x|yes", "ACGT")])
    (tmp_path / "classes" / "yes").mkdir(parents=True)
    write_bytes(tmp_path / "classes" / "yes" / "1.txt", b"ACGT")
    with pytest.raises(UsageError, match=rf"a\.fa: is a FASTA, which has no columns; leave out {flag}, or"):
        read(fasta, columns=columns)
    with pytest.raises(
        UsageError, match=rf"classes: is a folder, which has no columns; leave out {flag}, or"
    ):
        read(tmp_path / "classes", columns=columns)


def test_columns_that_others_stand_in_for_are_refused(tmp_path: Path, reference: Reference) -> None:
    bed = write_bed(tmp_path / "a.bed", [("chr1", 0, 4, "yes")])
    table = write_bytes(tmp_path / "a.csv", CSV)
    bedgraph = write_bed(tmp_path / "a.bedgraph", [("chr1", 0, 4, 1)])
    named = Columns(labels=("name",))
    with pytest.raises(UsageError, match=r"a\.bed: is a BED, .*; leave out --sequence-column$"):
        open_labelled([bed], Columns("seq", ("name",)), reference=reference)
    with pytest.raises(UsageError, match=r"a\.csv: has its labels from elsewhere; leave out --label-column$"):
        open_labelled([f"yes={table}"], named)
    with pytest.raises(UsageError, match=r"a\.bed: has its labels from elsewhere; leave out --label-column$"):
        open_labelled([bed], named, reference=reference, signal=bedgraph)
    with open_labelled([f"yes={table}"], Columns(id="label")) as rows:
        assert [record.id for record in rows] == ["x", "y"]


def test_records_that_cannot_be_trained_on_are_counted(tmp_path: Path) -> None:
    bad = ["NA", "AC5T", "", "nan", "AC-T", "*", "<NA>"]
    path = tmp_path / "a.csv"
    path.write_text("sequence,label\nACGT,x\n" + "".join(f"{text},x\nGGTA,y\n" for text in bad))
    statuses = ["EMPTY", "BAD_LETTER", "EMPTY", "EMPTY", "BAD_LETTER", "BAD_LETTER", "EMPTY"]
    assert [record.status for record in read(path) if record.status != "OK"] == statuses
    with (
        open_labelled([path]) as rows,
        pytest.raises(
            UserError, match=r"a.csv, lines 3, 5, 7, 9, 11, \.\.\. \(7 in all\): 7 records cannot be tr"
        ),
    ):
        rows.load()
    path.write_text("sequence,label\nACGT,x\nACZT,x\n")
    with (
        open_labelled([path]) as rows,
        pytest.raises(
            UserError, match=r"a.csv, line 3: 'Z' \(letter 3 of the sequence\) is not a nucleotide c"
        ),
    ):
        rows.load()


@pytest.mark.parametrize("text", sorted(MISSING))
def test_a_missing_value_is_neither_sequence_nor_label(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'sequence,label,split\nACGT, {text} ,{text}\n"{text}",x,train\n')
    first, second = read(path)
    assert (first.sequence, first.label, first.split) == (b"ACGT", "", "")
    assert (second.sequence, second.status, second.label) == (b"", "EMPTY", "x")


def test_what_spreadsheets_add_to_a_table_is_no_part_of_it(tmp_path: Path) -> None:
    path = write_bytes(
        tmp_path / "a.csv", b'\xef\xbb\xbf"sequence"; label ;;\r;;;\r" ACGT ";x;;\r;;\rggnu;"y"\r;;;\r'
    )
    assert plain(read(path)) == [("1", b"ACGT", "x"), ("2", b"GGNT", "y")]
