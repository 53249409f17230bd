"""What other systems call stays in step with the command line and with pyproject.toml."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from typer.main import get_command

import hyenacli
from hyenacli.app import app

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
MODULES = sorted((PACKAGING / "nf-core" / "modules" / "hyena").glob("*/main.nf"))
WRAPPERS = sorted((PACKAGING / "snakemake-wrappers" / "hyena").glob("*/wrapper.py"))
GALAXY_TOOLS = sorted((PACKAGING / "galaxy").glob("hyena_*.xml"))
# conda's names of what pip calls otherwise.
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def flags_of(verb: str) -> set[str]:
    """The flags that `hyena VERB` takes; a verb of two words is a command of a group."""
    command: Any = get_command(app)
    for word in verb.split():
        command = command.commands[word]
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def flags_used(text: str) -> dict[str, set[str]]:
    """The flags behind each `hyena VERB` of a text."""
    used: dict[str, set[str]] = {}
    for verb, arguments in re.findall(
        r"\bhyena (classify-species predict|[a-z-]+) (.*?)(?=\bhyena |\Z)", text, re.DOTALL
    ):
        used.setdefault(verb, set()).update(re.findall(r"(?<![\w-])(--?[a-z@][a-z-]*)(?![\w-])", arguments))
    return used


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_nextflow_modules_use_flags_that_exist(path: Path) -> None:
    text = path.read_text()
    script = text[text.index("script:") : text.index("stub:")]
    (verb,) = used = flags_used(script)
    assert verb.replace("-", "").replace(" predict", "") == path.parent.name
    genome = {"-f"} if "def genome" in script else set()
    assert used[verb] | genome <= flags_of(verb)
    meta = yaml.safe_load((path.parent / "meta.yml").read_text())
    assert meta["name"] == f"hyena_{path.parent.name}"
    inputs = re.findall(r"path\((\w+)\)", text[text.index("input:") : text.index("output:")])
    assert [channel[-1].popitem()[0] for channel in meta["input"]] == inputs
    emitted = re.findall(r"emit: (\w+)", text)
    assert list(meta["output"]) == emitted
    assert f"hyenacli={hyenacli.__version__}" in (path.parent / "environment.yml").read_text()
    assert f"hyenacli:{hyenacli.__version__}--" in text
    assert f'"{text.split()[1]}"' in (path.parent / "tests" / "main.nf.test").read_text()


@pytest.mark.parametrize("path", GALAXY_TOOLS, ids=lambda path: path.stem)
def test_galaxy_tools_use_flags_that_exist(path: Path) -> None:
    tool = ET.parse(path)
    command = tool.findtext("command") or ""
    (verb,) = used = flags_used(command)
    assert used[verb] <= flags_of(verb)
    named = {parameter.get("argument") for parameter in tool.iter("param")} - {None}
    assert named <= flags_of(verb)
    names = {parameter.get("name") for parameter in tool.iter("param")}
    names |= {str(flag).lstrip("-").replace("-", "_") for flag in named} | {
        "model",
        "fasta",
        "genome",
        "suffix",
    }
    assert set(re.findall(r"(?<!\\)\$\{?([a-z_]+)", command)) <= names
    macros = (PACKAGING / "galaxy" / "macros.xml").read_text()
    assert f'name="@TOOL_VERSION@">{hyenacli.__version__}<' in macros


@pytest.mark.parametrize("path", WRAPPERS, ids=lambda path: path.parent.name)
def test_snakemake_wrappers_use_flags_that_exist(path: Path) -> None:
    folder = path.parent
    text = path.read_text()
    (verb,) = used = flags_used(text)
    assert verb.split()[0] == folder.name
    assert used[verb] <= flags_of(verb)
    assert ("-f " in text) <= ("-f" in flags_of(verb))
    about = yaml.safe_load((folder / "meta.yaml").read_text())
    assert about["name"] == f"hyena {folder.name}"
    assert {"description", "url", "authors", "input", "output", "params"} <= about.keys()
    environment = yaml.safe_load((folder / "environment.yaml").read_text())
    assert f"hyenacli ={hyenacli.__version__}" in environment["dependencies"]
    assert f'"master/bio/hyena/{folder.name}"' in (folder / "test" / "Snakefile").read_text()


def test_the_workflow_uses_flags_that_exist() -> None:
    schema = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())
    job = schema["properties"]["jobs"]["additionalProperties"]
    verbs = job["properties"]["verb"]["enum"]
    assert job["then"] == {"not": {"required": ["fasta"]}}
    without_genome = job["if"]["properties"]["verb"]["const"]
    assert [verb for verb in verbs if "-f" not in flags_of(verb)] == [without_genome]
    rule = (ROOT / "workflow" / "Snakefile").read_text()
    for verb in verbs:
        assert {"-m", "-o", "--shard", "-@"} <= flags_of(verb)
    assert all(flag in rule for flag in (" -m ", " -o ", " --shard ", " -@ "))
    config = yaml.safe_load((ROOT / "workflow" / "config" / "config.yaml").read_text())
    for job in config["jobs"].values():
        assert job["verb"] in verbs
        assert set(re.findall(r"--[a-z-]+", job.get("extra", ""))) <= flags_of(job["verb"])


def bound_of(project: dict[str, Any], extra: str) -> str:
    (line,) = project["optional-dependencies"][extra]
    return str(re.sub("^[a-z_]+", "", line))


def test_conda_asks_for_what_pip_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(re.fullmatch(r"([a-z-]+)(.*)", line).groups() for line in project["dependencies"])  # type: ignore[union-attr]
    expected = {f"{CONDA_NAMES.get(name, name)} {bound}" for name, bound in bounds.items()}
    expected.add(f"python {project['requires-python']}")
    expected.add(f"huggingface_hub {bound_of(project, 'hub')}")
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template((PACKAGING / "bioconda" / "meta.yaml").read_text())
    recipe = yaml.safe_load(template.render(PYTHON="python", pin_subpackage=lambda name, max_pin: name))
    assert expected <= set(recipe["requirements"]["run"])
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {line.replace(">", " >", 1) for line in backend} <= set(recipe["requirements"]["host"])
    assert recipe["package"] == {"name": project["name"], "version": hyenacli.__version__}
    assert recipe["build"]["entry_points"] == [f"hyena = {project['scripts']['hyena']}"]
    assert recipe["test"]["imports"] == ["hyenacli", "hyenadna"]
    assert recipe["about"]["license"] == project["license"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert expected <= {line for line in environment["dependencies"] if isinstance(line, str)}


def make(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["make", "-s", *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def test_a_version_is_set_everywhere_and_has_its_notes(tmp_path: Path) -> None:
    shutil.copytree(PACKAGING, tmp_path / "packaging")
    (tmp_path / "hyenacli").mkdir()
    for name in ("Makefile", "CITATION.cff", "hyenacli/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    sections = ("## 9.8.7 (unreleased)\n\n- New.\n  More.\n\n", "## 0.1.0 (2026-01-31)\n\n- Old.\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n" + "".join(sections))
    named = [path for path in tmp_path.rglob("*.*") if hyenacli.__version__ in path.read_text()]
    assert {"__init__.py", "CITATION.cff", "meta.yaml", "macros.xml"} <= {path.name for path in named}
    make(tmp_path, "version", "VERSION=9.8.7")
    assert all("9.8.7" in path.read_text() for path in named if path.name != "CHANGELOG.md")
    assert make(tmp_path, "notes") == "- New.\n  More.\n\n"
    assert make(tmp_path, "notes", "VERSION=0.1.0") == "- Old.\n"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make(tmp_path, "notes", "VERSION=0.1")
    assert "CHANGELOG.md: no version 0.1" in failed.value.stderr
    # what is not told so would keep an old version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == hyenacli.__version__
    for path in MODULES:
        assert f"hyenacli={hyenacli.__version__}" in (path.parent / "environment.yml").read_text()
        assert path.read_text().count(f"/hyenacli:{hyenacli.__version__}--") == 2


ENGINES = Path(os.environ.get("HYENA_ENGINES", ROOT / ".engines")) / "bin"


@pytest.mark.slow
@pytest.mark.skipif(not ENGINES.exists(), reason=f"{ENGINES} is absent: `make engines` builds it")
@pytest.mark.parametrize(
    "line",
    [
        "planemo lint --fail_level warn packaging/galaxy",
        "hadolint packaging/containers/Dockerfile packaging/containers/Dockerfile.cuda",
    ],
)
def test_linters_have_nothing_to_say(line: str) -> None:
    program, *words = line.split()
    done = subprocess.run([ENGINES / program, *words], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
