import gzip
import logging
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hyenacli.errors import UserError
from hyenacli.genome.dna import normalise
from hyenacli.readers import genome_cache
from hyenacli.readers.genome import (
    SOFT_MASKED,
    Genome,
    count_bases,
    fingerprint,
    open_genomes,
    plain_tokens,
)
from hyenacli.readers.sequences import read_fasta
from hyenadna import Tokenizer
from tests.builders import Compression, random_dna, write_bytes, write_fasta

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded:DeprecationWarning"
)  # forks are what we test

CONTIGS = {
    "chr1": random_dna(1000, 1, "ACGTacgtNnRyu"),
    "empty": "",
    "22:1-500": random_dna(420, 2),
    "séq": "A",
    "big": random_dna(200_000, 3),
    "last": "",
}


RAGGED = [
    b">a\nACGT\nACGTACGT\nAC\n>b\nTTTTT\n",
    b">a\nACGTACG\nTACGTAC\n>b\nTT\nTTT\n",
    b">a\n\nACGTACGTACGTAC\n>b\nTTTTT\n",
    b">a\nACGTA\n\nCGTACGTAC\n>b\nTTTTT\n",
    b">a\nACGTAC\r\nGTACGTA\nC\n>b\nTTTTT\n",
    b">a\nACGTA \nCGTAC\nGTAC\n>b\nTTTTT\n",
    b">a\nACGT\r\nACGTA\nCGT \r\nAC\n>b\nTTTTT\n",
    b">a\nACGTACG \nTACGTAC \n>b\nTTTTT\t",
    b"\n\n>a\nACGTACG\nTACGTAC\n\n\n>b x\nTTTTT",
    b"\xef\xbb\xbf>a\nACGTACG\nTACGTAC\n>b x\nTTTTT",
]


def check_against(genome: Genome, contigs: dict[str, str], slices: int = 200) -> None:
    assert genome.lengths == {name: len(bases) for name, bases in contigs.items()}
    assert list(genome.lengths) == list(contigs)
    draw = random.Random(5)
    for name, bases in contigs.items():
        intervals = [sorted(draw.choices(range(len(bases) + 1), k=2)) for _ in range(slices)]
        for start, end in [(0, len(bases)), *intervals]:
            assert genome.fetch(name, start, end) == normalise(bases[start:end].encode())


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("width", [1, 7, 60, 1_000_000])
def test_every_slice_is_right(tmp_path: Path, compression: Compression, newline: str, width: int) -> None:
    contigs = CONTIGS if width > 1 else {name: bases[:2000] for name, bases in CONTIGS.items()}
    headers = [(f"{name} described", bases) for name, bases in contigs.items()]
    path = write_fasta(tmp_path / "g.fa", headers, width=width, newline=newline, compression=compression)
    with Genome(path) as genome:
        assert genome.path == path
        check_against(genome, contigs, 30)


@pytest.mark.parametrize(
    "text",
    RAGGED,
)
@pytest.mark.parametrize("compression", ["plain", "bgzip"])
def test_ragged_lines_and_blanks(tmp_path: Path, text: bytes, compression: Compression) -> None:
    with Genome(write_bytes(tmp_path / "g.fa", text, compression)) as genome:
        check_against(genome, {"a": "ACGTACGTACGTAC", "b": "TTTTT"}, 60)


def test_gzip_that_is_not_bgzip_throughout_is_copied(tmp_path: Path) -> None:
    packed = write_bytes(tmp_path / "a", b">a\nACGT\nACGT\n", "bgzip").read_bytes()
    blocks, end = packed[:-28], packed[-28:]
    size_changed = blocks[:16] + bytes([blocks[16] ^ 5]) + blocks[17:]
    second = gzip.compress(b">b\nTTTTT\n")
    for number, data in enumerate(
        [blocks + second + end, size_changed + second + end, end + packed + second + end]
    ):
        with Genome(write_bytes(tmp_path / f"{number}.fa.gz", data)) as genome:
            check_against(genome, {"a": "ACGTACGT", "b": "TTTTT"}, 20)


@pytest.mark.parametrize("size", [16, 17, 18, 40])
def test_the_beginning_of_a_bgzip_file_is_cut_short(tmp_path: Path, size: int) -> None:
    path = write_fasta(tmp_path / "g.fa.gz", [("a", "ACGT")], compression="bgzip")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match="the gzip data are damaged or cut short"):
        Genome(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b">a\nAC\n>b\nA\n>a\nGT\n", ", line 5: contig 'a' was already on line 1; give every contig a name"),
        (b">a\nAC\n>\nA\n", ", line 3: the record has no name"),
        (b">a\nAC\nA-\n", ", line 3: '-' in record 'a' is not a nucleotide code"),
        (b"hello\n", ", line 1: text before the first record"),
    ],
)
@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_errors_when_opened(
    tmp_path: Path, cache: Path, text: bytes, message: str, compression: Compression
) -> None:
    path = write_bytes(tmp_path / "g.fa", text, compression)
    with pytest.raises(UserError) as error:
        Genome(path)
    assert str(error.value).startswith(f"{path}{message}")
    assert list(cache.iterdir()) == []


def test_paths_that_are_no_genome(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Genome(tmp_path / "absent.fa")
    with pytest.raises(UserError, match="is not a file; a genome is read at random"):
        Genome(tmp_path)


def test_fetch_outside_a_contig_is_a_bug(tmp_path: Path) -> None:
    genome = Genome(write_fasta(tmp_path / "g.fa", [("a", "ACGT")]))
    for start, end in ((-1, 2), (0, 5), (3, 2), (5, 5)):
        with pytest.raises(ValueError, match="is not inside a of 4 bases"):
            genome.fetch("a", start, end)
    with pytest.raises(KeyError):
        genome.fetch("b", 0, 1)


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_a_changed_file_is_indexed_again(tmp_path: Path, cache: Path, compression: Compression) -> None:
    path = tmp_path / "g.fa"
    for seed, (width, length) in enumerate([(60, 500), (60, 500), (50, 500), (50, 490), (7, 500)]):
        time.sleep(0.02)  # more than the clock tick of a file system
        contigs = {"a": random_dna(length, seed), "b": random_dna(990 - length, seed + 10)}
        write_fasta(path, contigs.items(), width=width, compression=compression)
        os.utime(path, ns=(0, 0))
        check_against(Genome(path), contigs, 30)
    assert len(list(cache.iterdir())) == 1


def test_an_index_beside_the_file_is_neither_trusted_nor_written(tmp_path: Path) -> None:
    folder = tmp_path / "genomes"
    folder.mkdir()
    path = write_fasta(folder / "g.fa", [("a", random_dna(900, 1))], width=50)
    (folder / "g.fa.fai").write_text("a\t800\t3\t60\t61\n")
    check_against(Genome(path), {"a": random_dna(900, 1)})
    assert sorted(file.name for file in folder.iterdir()) == ["g.fa", "g.fa.fai"]


def test_a_file_that_changes_in_use_is_an_error(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", [("a", "ACGT")])
    genome = Genome(path)
    write_fasta(path, [("a", "TTTTACGT")])
    with pytest.raises(UserError, match="changed while it was in use"):
        genome.fetch("a", 0, 4)


def test_the_index_is_made_once_and_logged(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_fasta(tmp_path / "g*[x].fa", CONTIGS.items(), compression="gzip")
    (tmp_path / "link.fa").symlink_to(path)
    with caplog.at_level(logging.INFO, "hyena"):
        for opened in (path, path, tmp_path / "link.fa"):
            check_against(Genome(opened), CONTIGS, 5)
    (line,) = caplog.messages
    assert line.startswith(f"reading {path}, once, into {cache}")
    assert len(list(cache.iterdir())) == 1


def test_without_a_usable_cache_the_temporary_folder_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "file", b"x")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path = write_fasta(tmp_path / "g.fa", CONTIGS.items())
    check_against(Genome(path), CONTIGS, 5)
    (private,) = (tmp_path / "tmp").iterdir()
    assert private.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(private)
    private.write_bytes(b"in the way")
    with pytest.raises(UserError, match="no folder to keep what is made of a genome in; set HYENA_CACHE"):
        Genome(path)


def _digest(genome: Genome, seed: int) -> list[bytes]:
    draw = random.Random(seed)
    return [genome.fetch("big", start, start + 500) for start in draw.choices(range(199_000), k=300)]


def _open_and_digest(path: Path) -> list[bytes]:
    return _digest(Genome(path), 1)


@pytest.mark.parametrize("compression", ["plain", "gzip"])
def test_many_processes(tmp_path: Path, compression: Compression) -> None:
    path = write_fasta(tmp_path / "g.fa", CONTIGS.items(), compression=compression)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(_open_and_digest, [path] * 8, chunksize=1)
    genome = Genome(path)
    assert found == [_digest(genome, 1)] * 8
    with multiprocessing.get_context("fork").Pool(3) as pool:
        shared_handle = pool.starmap(_digest, [(genome, seed) for seed in range(6)], chunksize=1)
    assert shared_handle == [_digest(genome, seed) for seed in range(6)]


def _file_offsets(folder: Path) -> list[int]:
    """Where the next read of every file of a folder that this process has open begins."""
    opened = [fd for fd in Path("/proc/self/fd").iterdir() if str(folder) in str(fd.resolve())]
    return [int(Path("/proc/self/fdinfo", fd.name).read_text().split()[1]) for fd in opened]


@pytest.mark.skipif(
    not Path("/proc/self/fdinfo").is_dir(), reason="file offsets are seen only in Linux' /proc"
)
def test_a_handle_opened_before_a_fork_is_not_shared(tmp_path: Path) -> None:
    genome = Genome(write_fasta(tmp_path / "g.fa", CONTIGS.items()))
    expected = genome.fetch("big", 0, 10)
    before = _file_offsets(tmp_path)
    assert before
    child = os.fork()
    if child == 0:
        os._exit(genome.fetch("big", 190_000, 190_010) != CONTIGS["big"][190_000:190_010].encode())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _file_offsets(tmp_path) == before
    assert genome.fetch("big", 0, 10) == expected


def test_pickle_and_close(tmp_path: Path) -> None:
    genome = Genome(write_fasta(tmp_path / "g.fa", CONTIGS.items()))
    genome.fetch("chr1", 0, 5)
    check_against(pickle.loads(pickle.dumps(genome)), CONTIGS, 5)
    genome.close()
    check_against(genome, CONTIGS, 5)


@contextmanager
def samtools_copy(path: Path, folder: Path) -> Iterator[Path]:
    """A plain copy that samtools can index."""
    copy = folder / "copy.fa"
    copy.write_bytes(subprocess.run(["gzip", "-dcf", path], capture_output=True, check=True).stdout)
    yield copy
    copy.unlink()
    copy.with_suffix(".fa.fai").unlink()


@pytest.mark.skipif(shutil.which("samtools") is None, reason="samtools is not installed")
def test_real_genomes_agree_with_samtools(shared: Path, tmp_path: Path) -> None:
    draw = random.Random(1)
    for path in sorted((shared / "data" / "genomes").iterdir()):
        with Genome(path) as genome, samtools_copy(path, tmp_path) as copy:
            regions = []
            for name in draw.choices(list(genome.lengths), k=60):
                start = draw.randrange(genome.lengths[name])
                regions.append((name, start, min(genome.lengths[name], start + draw.randrange(1, 400))))
            asked = tmp_path / "regions.txt"
            asked.write_text("".join(f"{{{name}}}:{start + 1}-{end}\n" for name, start, end in regions))
            command = ["samtools", "faidx", "-n", "1000", copy, "-r", asked]
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            expected = [normalise(line.encode()) for line in shown.splitlines() if not line.startswith(">")]
            assert [genome.fetch(*region) for region in regions] == expected, path


def test_real_genomes_agree_with_the_stream(shared: Path) -> None:
    for path in sorted((shared / "data" / "genomes").iterdir()):
        with Genome(path) as genome:
            records = list(read_fasta(path))
            assert {record.name: len(record.sequence) for record in records} == genome.lengths
            for record in records[:50]:
                assert genome.fetch(record.name, 0, len(record.sequence)) == record.sequence


@pytest.mark.parametrize("compression", ["plain", "bgzip"])
def test_bases_are_those_of_pyfaidx(tmp_path: Path, compression: Compression) -> None:
    import pyfaidx

    contigs = {"one": random_dna(5_000, 3, "ACGTNacgt"), "two": random_dna(777, 4)}
    name = "g.fa" if compression == "plain" else "g.fa.gz"
    path = write_fasta(tmp_path / name, contigs.items(), width=61, compression=compression)
    genome = Genome(path)
    rng = random.Random(8)
    reference = pyfaidx.Fasta(str(path), sequence_always_upper=True, indexname=str(tmp_path / "other.fai"))
    for _ in range(200):
        contig = rng.choice(list(contigs))
        start, end = sorted(rng.sample(range(len(contigs[contig]) + 1), 2))
        assert genome.fetch(contig, start, end).decode() == reference[contig][start:end].seq
    reference.close()


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_codes_are_the_bases_and_their_case(tmp_path: Path, compression: Compression) -> None:
    records = [("a", "ACGTacgtNnRy"), ("empty", ""), ("b", "ttTT"), ("gap", "NNNN")]
    path = write_fasta(tmp_path / "g.fa", records, width=5, compression=compression)
    (genome,) = open_genomes([path])
    assert [(c.name, len(c), c.n_bases) for c in genome.contigs] == [("a", 12, 8), ("b", 4, 4), ("gap", 4, 0)]
    assert [c.n_soft_masked for c in genome.contigs] == [6, 2, 0]
    first = genome.contigs[0]
    assert Tokenizer().decode(first.tokens(0, 99)) == "ACGTACGTNNNN"
    assert (first.codes >= SOFT_MASKED).tolist() == [letter.islower() for letter in "ACGTacgtNnRy"]
    assert genome.fingerprint() == fingerprint(path)


def test_a_second_opening_reads_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    path = write_fasta(tmp_path / "g.fa", [("a", "ACGT" * 50)])
    (once,) = open_genomes([path])
    caplog.clear()  # another test may have left the logger at INFO
    with caplog.at_level(logging.INFO, "hyena"):
        (again,) = open_genomes([path])
    assert not caplog.messages
    assert np.array_equal(once.contigs[0].codes, again.contigs[0].codes)
    assert again.sha256 == once.sha256
    assert not again.contigs[0].codes.flags.writeable
    assert np.array_equal(once.contigs[0].codes, Genome(path, codes_required=True).contigs[0].codes)
    write_fasta(path, [("a", "TTTT" * 50)])
    os.utime(path, ns=(1, 1))
    assert (plain_tokens(open_genomes([path])[0].contigs[0].codes) == 10).all()
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([("a", "ACGT"), ("a", "AC")], "contig 'a' was already on line 1"),
        ([("a", "NNNN")], "no A, C, G or T in any record"),
        ([("a", "")], "no A, C, G or T in any record"),
        ([("a", "ACGT-")], "'-' in record 'a' is not a nucleotide code"),
    ],
)
def test_what_is_no_genome(tmp_path: Path, records: list[tuple[str, str]], message: str, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", records)
    with pytest.raises(UserError, match=message):
        open_genomes([path])
    assert not list(cache.glob(".building*"))


@pytest.mark.parametrize("width", [3, 60, 100_000])
def test_all_lines_with_other_letters_are_counted(tmp_path: Path, width: int) -> None:
    bases = "ACGT" * 20_000
    rows = [("a", bases[:-3] + "*GT"), ("b", bases), ("c", "-" + bases[1:] + "X"), ("d", "ACGT")]
    path = write_fasta(tmp_path / "g.fa", rows, width=width)
    lines = [number for number, line in enumerate(path.read_text().splitlines(), 1) if set(line) & set("*-X")]
    lines = [number for number in lines if not path.read_text().splitlines()[number - 1].startswith(">")]
    with pytest.raises(UserError) as error:
        Genome(path)
    where = f"{path}, lines {', '.join(f'{line:,}' for line in lines)}"
    what = f"{len(lines)} lines with letters that are not nucleotide codes, the first as '*' in record 'a'"
    assert str(error.value).startswith(f"{where}: {what} is not a nucleotide code; only DNA and RNA in")


def test_the_same_genome_twice_is_refused(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", [("a", "ACGT")])
    copy = write_fasta(tmp_path / "copy.fa", [("a", "ACGT")])
    with pytest.raises(UserError, match=r"copy\.fa: has the same contents as .*g\.fa; give it once"):
        open_genomes([path, copy])


def test_bases_are_counted_without_n() -> None:
    assert count_bases(Tokenizer().encode_array("ACGTNN")) == 4


# Where the cache has no room.


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A quota: no file may have more than 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("compression", ["plain", "bgzip"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["g.fa", "g.fa.gz", "g*[x].zip"])
def test_without_room_bases_are_read_through_an_index(
    tmp_path: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    compression: Compression,
    newline: str,
    name: str,
    request: pytest.FixtureRequest,
) -> None:
    (tmp_path / "genomes").mkdir()
    path = tmp_path / "genomes" / name
    write_fasta(path, CONTIGS.items(), newline=newline, compression=compression)
    os.utime(path, (4e9, 4e9))  # newer than any index
    request.getfixturevalue("no_room")
    with caplog.at_level(logging.INFO, "hyena"), Genome(path) as genome:
        check_against(genome, CONTIGS, 30)
        check_against(pickle.loads(pickle.dumps(genome)), CONTIGS, 5)
    assert any("the cache cannot be written: File too large" in line for line in caplog.messages)
    (folder,) = cache.iterdir()
    caplog.clear()
    with caplog.at_level(logging.INFO, "hyena"), Genome(path) as genome:
        check_against(genome, CONTIGS, 5)
    (line,) = caplog.messages
    assert line == f"{path} is read through its index; remove {folder} to try to cache its bases again"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="the cache cannot be written: File too large; set HYENA_CACHE"):
        open_genomes([path])


def test_the_index_makes_room_for_the_bases_when_there_is_some(tmp_path: Path, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", CONTIGS.items())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    indexed = Genome(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (genome,) = open_genomes([path])
    assert len(list(cache.iterdir())) == 1
    assert (genome.sha256, genome.lengths) == (indexed.sha256, indexed.lengths)
    check_against(Genome(path), CONTIGS, 5)


def test_a_full_disk_is_seen_beforehand(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_fasta(tmp_path / "g.fa", CONTIGS.items())
    usage = shutil.disk_usage(tmp_path)._replace(free=path.stat().st_size - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with caplog.at_level(logging.INFO, "hyena"):
        check_against(Genome(path), CONTIGS, 5)
    assert any("no room for the 0.0 GB of g.fa" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("text", "compression"),
    [(text, "plain") for text in RAGGED] + [(b">a\nACGTACG\nTACGTAC\n>b\nTTTTT\n", "gzip")],
)
def test_what_pyfaidx_would_read_wrongly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, compression: Compression
) -> None:
    path = write_bytes(tmp_path / "g.fa", text, compression)
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"cannot be indexed as it is.*; set HYENA_CACHE to a folder"):
        Genome(path)


def test_bases_of_long_contigs_are_right_across_blocks(tmp_path: Path) -> None:
    sequence = random_dna(2_500_000, 4, "ACGTacgtN")
    for number, width in enumerate((61, 3_000_000)):
        genome = Genome(write_fasta(tmp_path / f"{number}.fa", [("a", sequence), ("b", "ACG")], width=width))
        check_against(genome, {"a": sequence, "b": "ACG"}, 20)


# Damage to the cache.


@pytest.mark.parametrize("rounds", [24, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize("compression", ["plain", "bgzip"])
@pytest.mark.parametrize("kind", ["codes", "index"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    compression: Compression,
    kind: str,
    rounds: int,
    request: pytest.FixtureRequest,
) -> None:
    path = write_fasta(tmp_path / "g.fa", CONTIGS.items(), compression=compression)
    if kind == "index":
        request.getfixturevalue("no_room")
    expected = {name: normalise(bases.encode()) for name, bases in CONTIGS.items()}

    def read() -> dict[str, bytes]:
        with Genome(path) as genome:
            return {name: genome.fetch(name, 0, length) for name, length in genome.lengths.items()}

    assert read() == expected
    (folder,) = cache.iterdir()
    files = [file for file in folder.iterdir() if not file.is_symlink() and file.stat().st_size]
    draw = random.Random(compression + kind)
    for number in range(rounds):
        file = files[number % len(files)]
        data = bytearray(file.read_bytes())
        if number % 5:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        else:
            del data[draw.randrange(len(data)) :]
        file.write_bytes(data)
        caplog.clear()
        assert read() == expected, (file, number)
        warnings = [line for line in caplog.messages if "is damaged, and is made again" in line]
        assert len(warnings) == 1, (file, number)


def test_a_file_that_is_gone_from_the_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", CONTIGS.items())
    genome = Genome(path)
    for name in ("codes", "codes.crc", "genome.json"):
        (folder,) = cache.iterdir()
        (folder / name).unlink()
        check_against(Genome(path), CONTIGS, 5)
    check_against(genome, CONTIGS, 5)


def test_training_reads_no_damaged_codes(tmp_path: Path, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", [("a", random_dna(200_000, 6)), ("b", "ACGT")])
    whole = [contig.codes.tobytes() for contig in Genome(path, codes_required=True).contigs]
    (folder,) = cache.iterdir()
    codes = bytearray((folder / "codes").read_bytes())
    codes[150_000] ^= 1
    (folder / "codes").write_bytes(codes)
    assert [contig.codes.tobytes() for contig in Genome(path, codes_required=True).contigs] == whole


def _die_while_building(path: Path) -> None:
    genome_cache.sync = lambda _: os._exit(9)  # type: ignore[assignment]
    Genome(path)


def test_what_a_dead_process_left_is_removed(tmp_path: Path, cache: Path) -> None:
    path = write_fasta(tmp_path / "g.fa", CONTIGS.items())
    process = multiprocessing.get_context("fork").Process(target=_die_while_building, args=(path,))
    process.start()
    process.join()
    assert (process.exitcode, len(list(cache.iterdir()))) == (9, 1)
    check_against(Genome(path), CONTIGS, 5)
    assert len(list(cache.iterdir())) == 1
