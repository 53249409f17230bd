"""A full disk, or a limit on the size of files: one error, exit code 1, and no file, for every format."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hyenacli.writers.fasta import FASTAS
from hyenacli.writers.tables import TABLES
from hyenacli.writers.tracks import TRACKS
from hyenacli.writers.vcf_files import VCFS

SCRIPT = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from hyenacli.errors import UserError
from hyenacli.readers.variants import open_variants
from hyenacli.writers.arrays import open_arrays
from hyenacli.writers.columns import Column
from hyenacli.writers.fasta import open_fasta_output
from hyenacli.writers.output_shards import merge_shards
from hyenacli.writers.tables import open_table
from hyenacli.writers.tracks import open_track
from hyenacli.writers.variants import open_annotated
from hyenacli.writers.vcf import InfoField, shard_line

SHARD = {"number": 1, "of": 1, "records": 1, "input_sha256": "x", "every_record": False}
draw = np.random.default_rng(0)
header = "##fileformat=VCFv4.2\\n##contig=<ID=c>\\n#CHROM\\tPOS\\tID\\tREF\\tALT\\tQUAL\\tFILTER\\tINFO\\n"
Path("in.vcf").write_text(header + "".join(f"c\\t{i + 1}\\t.\\tA\\tC\\t.\\t.\\t.\\n" for i in range(20_000)))

def table(target, kind):
    columns = [Column("id", str), Column("embedding", float, 256)]
    with open_table(target, None, columns, {"settings": {}, "shard": SHARD}) as out:
        for number in range(100):
            out.write({"id": [str(number)], "embedding": draw.normal(size=(1, 256)).astype(np.float32)})

def track(target, kind):
    with open_track(target, kind, {'c': 20_000}, {"shard": SHARD}) as out:
        out.write("c", 0, draw.normal(size=20_000))

def arrays(target, kind):
    with open_arrays(target, {"a": "b"}) as out:
        for number in range(4):
            out.write(f"map_{number}", draw.normal(size=(50, 50)))
        out.write("id", np.array(["x"] * 9, dtype=np.str_))

def fasta(target, kind):
    with open_fasta_output(target, kind, {}) as write:
        for number in range(50):
            write(str(number), draw.choice(list(b"ACGT"), 2000).astype(np.uint8).tobytes())

def variants(target, kind):
    fields = [InfoField("X", "A", "Float", "x")]
    lines = [shard_line(SHARD)]
    with open_variants("in.vcf") as source, open_annotated(target, None, source.header, fields, lines) as out:
        for record in source:
            out.write(record, {"X": draw.normal(size=1).tolist()})

def merge(target, kind):
    merge_shards([Path(f"shard.{kind}")], target)

WRITE = {"table": table, "track": track, "arrays": arrays, "fasta": fasta, "variants": variants}
jobs = [(job, *job.split(":")) for job in sys.argv[1:]]
for job, name, kind in jobs[:]:
    if name in ("table", "track", "variants"):
        WRITE[name](Path(f"shard.{kind}"), kind)
        jobs.append((f"merge of {kind}", "merge", kind))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 1000, 20_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for job, name, kind in jobs:
        try:
            (WRITE | {"merge": merge})[name](Path(f"out.{kind}"), kind)
            sys.stdout.buffer.raw.write(f"{job} at {limit}: no error\\n".encode())
        except UserError as error:
            if "cannot be written" not in str(error):
                sys.stdout.buffer.raw.write(f"{job} at {limit}: {error}\\n".encode())
sys.exit(1)
"""


# After several failures in one process HDF5 may crash; a command ends at its first.
@pytest.mark.parametrize("alone", ["h5", "h5ad", ""])
def test_a_full_disk_is_one_error(alone: str, tmp_path: Path) -> None:
    packages = {"h5ad": "anndata", "h5": "h5py", "bw": "pybigtools"}
    formats = {"table": TABLES, "track": TRACKS, "arrays": ("npz", "h5"), "fasta": FASTAS, "variants": VCFS}
    jobs = [
        f"{name}:{kind}"
        for name, kinds in formats.items()
        for kind in kinds
        if alone == (kind if kind in ("h5", "h5ad") else "") and find_spec(packages.get(kind, "json"))
    ]
    if not jobs:
        pytest.skip(f"the extra for .{alone} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *jobs],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    # a library that still tries to write at the end of the process would be killed by a signal
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("shard.")}
    assert left == {"in.vcf"}
