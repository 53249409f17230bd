"""The commands of the README and of the pages in docs/ run as they stand, and print what is shown there."""

import contextlib
import io
import json
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


BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
NEXT = "=== next block"
# What differs from model to model: letters of sequences and alleles, numbers, times, and the verdict on them.
VARYING = re.compile(
    r"[ACGT]{4,}|(?<=\t)[ACGT](?=\t)|(?<=  )[ACGT](?=  )|[+-]?\d[\d.,:e+-]*%?|\bnan\b"
    r"|\b(?:no better|better|worse|less|more) than\b|no different from|as good as"
)


def blocks(language: str, text: str = README) -> list[str]:
    return [block for name, block in BLOCK.findall(text) if name == language]


def with_outputs(text: str) -> list[tuple[str, str | None]]:
    """Pair each block of commands with the ```text block that follows it at once, which is its output."""
    found = list(BLOCK.finditer(text))
    pairs: list[tuple[str, str | None]] = []
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block[1] == "sh":
            adjacent = after is not None and not text[block.end() : after.start()].strip()
            shown = after[2] if after is not None and adjacent and after[1] == "text" else None
            pairs.append((block[2], shown))
    return pairs


def pattern_of(shown: str) -> re.Pattern[str]:
    """Return what matches an output: numbers may differ, and `...` is any text, on its own line any lines."""
    lines = []
    for line in shown.splitlines():
        if line == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            parts = (mask(part) for part in line.split("..."))
            lines.append(".*".join(map(re.escape, parts)) + r"\n")
    return re.compile("".join(lines))


def mask(output: str) -> str:
    """Return lines with words for what varies, and without the spaces that align columns."""
    masked = VARYING.sub("#", output)
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in masked.split("\n"))


def run_script(text: str, folder: Path) -> None:
    """Run the commands of one page in `folder`, stopping at the first that fails; compare outputs."""
    folders = [command().parent, Path(sys.executable).parent, os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(map(str, folders))}
    pairs = with_outputs(text)
    script = "".join(f"{commands}echo '{NEXT}'\n" for commands, _ in pairs)
    run = ["bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{script}"]
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    for (commands, shown), output in zip(pairs, done.stdout.split(f"{NEXT}\n"), strict=False):
        if shown is not None:
            assert pattern_of(shown).fullmatch(mask(output)), f"{commands}prints\n{output}, shown is\n{shown}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo` leaves it, from a tenth of its genome and a run of two steps."""
    folder = tmp_path_factory.mktemp("readme")
    out = folder / "demo-output"
    out.mkdir()
    example = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    example["CONTIGS"].update(train1=60, train2=60, heldout=40)
    example["OTHER"].update(dict.fromkeys(example["OTHER"], 10_000))
    example["write_genome"](out)
    example["write_other"](out)
    example["write_variants"](out)
    flags = "--d-model 64 --max-length 256 --max-steps 2 --eval-windows 4 --global-batch-size 2 -q"
    train = f"pretrain {out / 'genome.fa'} -o {out / 'run'} {flags}"
    subprocess.run([command(), *train.split()], check=True)
    for name, rows in (("regions.bed", slice(None, None, 2)), ("kinds.bed", slice(None, None, 5))):
        few = (out / name).read_text().splitlines(keepends=True)[rows]
        (out / name).write_text("".join(few))
    embed = f"embed {out / 'regions.bed'} -f {out / 'genome.fa'} -m {out / 'run'} -o {out / 'run.npz'} -q"
    subprocess.run([command(), *embed.split()], check=True)
    return folder


@pytest.mark.timeout(600)
def test_the_commands_work_in_the_order_they_stand_in(demo: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(demo, tmp_path / "work")
    assert "".join(blocks("sh")).count("hyena ") >= 5
    run_script(README, folder)
    assert (folder / "my-run" / "report.html").exists()
    assert (folder / "regions.parquet").exists()
    assert (folder / "predictions.tsv").exists()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks("sh", page.read_text())],
    ids=lambda page: str(page.relative_to(ROOT / "docs")),
)
def test_the_commands_of_a_page_work(demo: Path, tmp_path: Path, page: Path) -> None:
    folder = shutil.copytree(demo, tmp_path / "work")
    run_script(page.read_text(), folder)


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks("python", page.read_text())])
def test_the_python_works(demo: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.chdir(demo)
    exec(code, {})


@pytest.mark.parametrize("notebook", sorted((ROOT / "docs").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(
    demo: Path, tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(demo, tmp_path / "work")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    variables: dict[str, object] = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec("".join(cell["source"]), variables)
            shown = "".join(text for output in cell["outputs"] for text in output["text"])
            assert pattern_of(shown).fullmatch(mask(printed.getvalue())), printed.getvalue()
    assert list(folder.glob("*.png"))


def test_every_verb_and_make_target_is_there() -> None:
    from hyenacli.app import VERBS

    for name in (name for panel in VERBS.values() for name in panel):
        assert (ROOT / "docs" / f"{name}.md").exists()
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    pages = (README, (ROOT / "CONTRIBUTING.md").read_text())
    named = {name for page in pages for name in re.findall(r"(?:^|`)make ([a-z-]+)", page, re.MULTILINE)}
    assert {"demo", "test", "bench"} <= named <= targets
