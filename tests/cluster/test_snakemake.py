"""The workflow on the data of `make demo`, under a real Snakemake (`make engines` installs it)."""

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hyenadna import save_model
from tests.builders import random_dna, write_bed, write_fasta
from tests.finetunes import two_classes
from tests.toys import tiny_model

ROOT = Path(__file__).parents[2]
ENGINES = Path(os.environ.get("HYENA_ENGINES", ROOT / ".engines")) / "bin"
SNAKEMAKE = [str(ENGINES / "snakemake"), "-s", str(ROOT / "workflow" / "Snakefile"), "--config", "threads=1"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not ENGINES.exists(), reason=f"{ENGINES} is absent: `make engines` builds it"),
]
# Snakemake is in an environment of its own, and takes hyena from PATH as users do.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The demo's genome, regions and variants, and a model that was not trained."""
    write = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    folder = tmp_path / "demo-output"
    folder.mkdir()
    write["write_genome"](folder)
    write["write_variants"](folder)
    save_model(tiny_model(context=1024), folder / "run")
    return tmp_path


def shards_at_work(folder: Path) -> Iterator[int]:
    """The processes of hyena that work on a shard in a folder, by number."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"--shard" in words and (process / "cwd").resolve() == folder:
                yield int(process.name)
        except OSError:  # it has ended
            continue


def wait_for_shards(folder: Path, snakemake: "subprocess.Popen[str]") -> list[int]:
    while len(found := list(shards_at_work(folder))) != 2:
        assert snakemake.poll() is None, snakemake.communicate()
        time.sleep(0.05)
    return found


def hyena(folder: Path, line: str) -> None:
    program = Path(sys.executable).with_name("hyena")
    subprocess.run([program, *line.split()], cwd=folder, check=True, capture_output=True)


def test_two_jobs_at_once_with_kills(demo: Path) -> None:
    command = [*SNAKEMAKE, "-j", "2"]
    snakemake = subprocess.Popen(
        command, cwd=demo, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE, start_new_session=True
    )
    # one shard is killed, and tried again by the rule; then everything is, as at the end of a node
    first, _ = wait_for_shards(demo, snakemake)
    os.kill(first, signal.SIGKILL)
    while first in (at_work := wait_for_shards(demo, snakemake)):
        time.sleep(0.05)
    os.killpg(snakemake.pid, signal.SIGKILL)
    _, log = snakemake.communicate()
    assert "Trying to restart job" in log
    for process in at_work:
        os.kill(process, signal.SIGKILL)
    results = demo / "results"
    assert not list(results.glob("*.*"))
    locked = subprocess.run(command, cwd=demo, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    assert "--unlock" in locked.stderr
    for more in ("--unlock", "--rerun-incomplete"):
        subprocess.run([*command, more], cwd=demo, env=ENVIRONMENT, check=True, capture_output=True)
    assert {path.name for path in results.iterdir()} >= {"regions.parquet", "variants.vcf.gz", "logs"}
    assert not list((results / "shards").rglob("*.*"))
    common = "-f demo-output/genome.fa -m demo-output/run -@ 1"
    hyena(demo, f"embed demo-output/regions.bed {common} -o alone.parquet")
    variants = "demo-output/variants.vcf --window 256 --downstream 64"
    hyena(demo, f"score-variants {variants} {common} -o alone.vcf.gz")
    assert pq.read_table(results / "regions.parquet").equals(pq.read_table(demo / "alone.parquet"))
    read = [
        subprocess.run(["zgrep", "-v", "^#", path], check=True, capture_output=True).stdout
        for path in (results / "variants.vcf.gz", demo / "alone.vcf.gz")
    ]
    assert read[0] == read[1]
    assert len(read[0].splitlines()) == 240
    again = subprocess.run(
        [*command, "-n"], cwd=demo, env=ENVIRONMENT, check=True, capture_output=True, text=True
    )
    assert "Nothing to be done" in again.stdout + again.stderr


def test_two_workflows_share_a_cache(demo: Path, tmp_path: Path) -> None:
    """Both find no genome in the cache, and read the same FASTA at the same time."""
    environment, running = ENVIRONMENT | {"XDG_CACHE_HOME": str(tmp_path / "cache")}, []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "demo-output").symlink_to(demo / "demo-output")
        command = [*SNAKEMAKE, "-j", "1", "results/regions.parquet"]
        running.append(
            subprocess.Popen(command, cwd=tmp_path / name, env=environment, stderr=subprocess.DEVNULL)
        )
    assert [snakemake.wait() for snakemake in running] == [0, 0]
    tables = [pq.read_table(tmp_path / name / "results" / "regions.parquet") for name in ("one", "two")]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows == 1600
    kept = list((tmp_path / "cache" / "hyena" / "genomes").iterdir())
    assert len([path for path in kept if path.name.startswith("genome.fa-")]) == 1, kept


def test_every_wrapper_runs(tmp_path: Path) -> None:
    wrappers = ROOT / "packaging" / "snakemake-wrappers" / "hyena"
    genome = write_fasta(tmp_path / "genome.fa", [("chr1", random_dna(600))])
    write_bed(tmp_path / "regions.bed", [("chr1", start, start + 30) for start in range(0, 400, 40)])
    base = random_dna(600)[99]
    row = f"chr1\t100\t.\t{base}\t{'A' if base != 'A' else 'C'}\t.\t.\t.\n"
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "variants.vcf").write_text(f"##fileformat=VCFv4.2\n{columns}{row}")
    for name in ("sequences.fa", "contigs.fa"):
        shutil.copy(genome, tmp_path / name)
    save_model(tiny_model(), tmp_path / "model")
    data = two_classes(tmp_path / "data.csv", 60)
    small = "--device cpu --no-baseline -m model"
    hyena(tmp_path, f"finetune {data} {small} -o finetuned --epochs 1")
    write_fasta(tmp_path / "rich.fa", [(f"g{i}", random_dna(3000, i, "ACGTGC")) for i in range(10)])
    write_fasta(tmp_path / "poor.fa", [(f"a{i}", random_dna(3000, i, "ACGTAT")) for i in range(10)])
    species = "--species rich=rich.fa --species poor=poor.fa --max-length 64 --max-steps 2 --eval-windows 8"
    hyena(tmp_path, f"classify-species train {species} {small} -o species")
    for number in (1, 2):
        part = f"-o {number}.parquet --shard {number}/2"
        hyena(tmp_path, f"embed regions.bed -f genome.fa -m model {part}")
    models = {"predict": "finetuned", "classify-species": "species"}
    for folder in sorted(wrappers.iterdir()):
        text = (folder / "test" / "Snakefile").read_text()
        text = text.replace("master/bio/hyena", f"file://{wrappers}")
        text = text.replace('model="model"', f'model="{models.get(folder.name, "model")}"')
        (tmp_path / "Snakefile").write_text(text)
        (output,) = re.findall(r'output:\n +"(.*)"', text)
        (tmp_path / output).unlink(missing_ok=True)
        command = [str(ENGINES / "snakemake"), "-j", "1"]
        done = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / output).stat().st_size > 0
        assert (tmp_path / "logs" / f"{folder.name}.log").exists()
    assert pq.read_table(tmp_path / "regions.parquet").num_rows == 10
