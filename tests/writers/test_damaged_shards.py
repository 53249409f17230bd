"""A flipped bit or a cut in a shard never reaches the merged file, and never ends in a traceback."""

import gzip
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest

from hyenacli.errors import UserError
from hyenacli.readers.variants import open_variants
from hyenacli.writers.output_shards import merge_shards
from hyenacli.writers.tables import TABLES, BinaryTable, open_table
from hyenacli.writers.tracks import TRACKS, open_track
from hyenacli.writers.variants import open_annotated
from hyenacli.writers.vcf import InfoField, shard_line
from tests.writers.test_merge import COLUMNS, installed

VARIANTS = ("vcf", "vcf.gz", "bcf")
KINDS = [*map(installed, (*TABLES, *TRACKS)), *VARIANTS]
RECORDS = 40


def mark(number: int, **more: Any) -> dict[str, Any]:
    return {"number": number, "of": 2, "records": 2 * RECORDS, "input_sha256": "5ha", **more}


def write_table_shard(path: Path, number: int) -> None:
    draw = np.random.default_rng(number)
    provenance = {"model_sha256": "m", "settings": {"layer": "all"}, "shard": mark(number)}
    with open_table(path, None, COLUMNS, provenance) as table:
        for start in range(RECORDS):
            vectors = draw.normal(size=(1, 5)).astype(np.float32)
            batch = {"id": [f"r{start}"], "start": [start], "gc": [draw.normal()]}
            table.write(batch | {"embedding_1": vectors[:, :2], "embedding": vectors[:, 2:]})


def write_track_shard(path: Path, kind: str, number: int) -> None:
    draw = np.random.default_rng(number)
    with open_track(
        path, kind, dict.fromkeys(["chr1", "chr2", "chr3"], RECORDS), {"shard": mark(number)}
    ) as track:
        track.write(f"chr{number}", 0, draw.normal(size=RECORDS))


def write_variant_shard(path: Path, number: int) -> None:
    draw = random.Random(number)
    header = "##fileformat=VCFv4.2\n##contig=<ID=c>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    source = path.with_suffix(".in")
    source.write_text(header + "".join(f"c\t{i + 1}\t.\tA\tC\t.\t.\t.\n" for i in range(RECORDS)))
    fields = [InfoField("X", "A", "Float", "x")]
    lines = ["##hyena_version=1", shard_line(mark(number, every_record=True))]
    with open_variants(source) as variants, open_annotated(path, None, variants.header, fields, lines) as out:
        for record in variants:
            out.write(record, {"X": [draw.gauss(0, 1)]})


def write_shard(path: Path, kind: str, number: int) -> None:
    if kind in TRACKS:
        write_track_shard(path, kind, number)
    elif kind in VARIANTS:
        write_variant_shard(path, number)
    else:
        write_table_shard(path, number)


def rows(path: Path, kind: str) -> Any:
    """What a merged file says, where two files that say the same may differ in their bytes."""
    table = TABLES.get(kind)
    if isinstance(table, BinaryTable):
        columns, provenance, batches = table.read(path)
        joined = [{name: np.asarray(values).tolist() for name, values in batch.items()} for batch in batches]
        provenance["settings"].pop("output")
        return columns, provenance, joined
    if kind == "bcf":
        with pysam.VariantFile(str(path)) as file:
            return str(file.header), [str(record) for record in file]
    if kind == "vcf.gz":  # blocks are copied where they can be, or else packed again
        return gzip.decompress(path.read_bytes())
    return path.read_bytes()


@contextmanager
def merged(folder: Path, kind: str, number: int) -> Iterator[Path]:
    target = folder / f"merged{number}.{kind}"
    merge_shards([folder / f"1.{kind}", folder / f"2.{kind}"], target)
    yield target
    target.unlink()


def check_damage(folder: Path, kind: str, flips: int, cuts: int) -> None:
    for number in (1, 2):
        write_shard(folder / f"{number}.{kind}", kind, number)
    with merged(folder, kind, 0) as target:
        expected = rows(target, kind)
    path = folder / f"1.{kind}"
    sound, draw, refused = path.read_bytes(), random.Random(0), 0
    for trial in range(flips + cuts):
        damaged = bytearray(sound)
        if trial < flips:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        else:
            del damaged[draw.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            with merged(folder, kind, trial) as target:
                assert rows(target, kind) == expected, f"trial {trial}"
        except UserError:
            refused += 1
    assert refused >= cuts


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_reaches_the_merged_file(tmp_path: Path, kind: str) -> None:
    check_damage(tmp_path, kind, flips=25, cuts=5)


def test_the_plain_copy_of_a_parquets_provenance_is_compared(tmp_path: Path) -> None:
    for number in (1, 2):
        write_shard(tmp_path / f"{number}.parquet", "parquet", number)
    path = tmp_path / "1.parquet"
    sound = path.read_bytes()
    for word in (b'"layer"', b'"model_sha256"', b'"settings"'):
        assert sound.count(word) >= 1
        path.write_bytes(sound.replace(word, word.replace(b"e", b"d"), 1))
        with (
            pytest.raises(UserError, match=r"1\.parquet: .*make this shard again"),
            merged(tmp_path, "parquet", 0),
        ):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_of_many_reaches_the_merged_file(tmp_path: Path, kind: str) -> None:
    check_damage(tmp_path, kind, flips=200, cuts=50)
