"""The commands of the README and of the pages in docs/ run as they stand."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm import command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run_script(script: str, folder: Path) -> None:
    """Run the commands of one page in `folder`, stopping at the first that fails."""
    folders = [command().parent, Path(sys.executable).parent, os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(map(str, folders))}
    run = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo` leaves it, from a tenth of its genome and a run of two steps."""
    folder = tmp_path_factory.mktemp("readme")
    out = folder / "demo-output"
    out.mkdir()
    example = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    example["CONTIGS"].update(train1=60, train2=60, heldout=40)
    example["write_genome"](out)
    example["write_other"](out)
    example["write_variants"](out)
    flags = "--d-model 64 --max-length 256 --max-steps 2 --eval-windows 4 --global-batch-size 2 -q"
    train = f"pretrain {out / 'genome.fa'} -o {out / 'run'} {flags}"
    subprocess.run([command(), *train.split()], check=True)
    for name, rows in (("regions.bed", slice(20)), ("kinds.bed", slice(None, None, 5))):
        few = (out / name).read_text().splitlines(keepends=True)[rows]
        (out / name).write_text("".join(few))
    embed = f"embed {out / 'regions.bed'} -f {out / 'genome.fa'} -m {out / 'run'} -o {out / 'run.npz'} -q"
    subprocess.run([command(), *embed.split()], check=True)
    return folder


@pytest.mark.timeout(600)
def test_the_commands_work_in_the_order_they_stand_in(demo: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(demo, tmp_path / "work")
    script = "".join(blocks("sh"))
    assert script.count("hyena ") >= 5
    run_script(script, folder)
    assert (folder / "my-run" / "report.html").exists()
    assert (folder / "regions.parquet").exists()
    assert (folder / "predictions.tsv").exists()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks("sh", page.read_text())], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_work(demo: Path, tmp_path: Path, page: Path) -> None:
    folder = shutil.copytree(demo, tmp_path / "work")
    run_script("".join(blocks("sh", page.read_text())), folder)


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks("python", page.read_text())])
def test_the_python_works(demo: Path, code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=demo, check=True)


def test_every_verb_and_make_target_is_there() -> None:
    from hyenacli.app import VERBS

    for name in (name for panel in VERBS.values() for name in panel):
        assert (ROOT / "docs" / f"{name}.md").exists()
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert targets == {"help", "demo", "test", "check", "test-slow", "bench", "fmt", "dist", "docs", "clean"}
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
