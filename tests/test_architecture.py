"""Promises of the layout: who may import whom, and what the command line must not load."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERBS = (
    "compare",
    *("pretrain", "finetune", "embed", "variants", "species"),
    *("score_sequences", "generate", "tracks", "tools"),
)
# A module may import those of its own level and of the levels after it; a verb imports no other verb.
LEVELS = (
    ("__main__",),
    ("api", "app"),
    VERBS,
    ("adaptation",),
    ("training",),
    ("inference",),
    ("evaluation",),
    ("writers",),
    ("readers",),
    ("genome",),
    ("verbs",),
    ("options", "terminal_tables"),
    ("console", "devices", "settings_file", "state_files"),
    ("distributed", "errors", "__init__"),
)
OWNERS = {
    "pysam": ("readers", "writers"),
    "pyfaidx": ("readers",),
    "Bio": ("readers",),
    "pyarrow": ("readers", "writers"),
    "sklearn": ("evaluation",),
    "matplotlib": ("evaluation",),
    "anndata": ("writers",),
    "h5py": ("writers",),
}
SOURCES = sorted((ROOT / "hyenacli").rglob("*.py"))


def level(part: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if part in names)


@cache
def imports(path: Path) -> set[str]:
    """Every module a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    return path.relative_to(ROOT / "hyenacli").with_suffix("").parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "hyenacli" and rest and rest[0] in {p for names in LEVELS for p in names}:
            assert level(rest[0]) >= level(part(path)), f"{path.name} imports {name}"
            assert rest[0] == part(path) or rest[0] not in VERBS or part(path) in ("api", "app"), (
                f"{path.name} imports {name}"
            )
        if package in OWNERS:
            assert part(path) in OWNERS[package], f"{path.name} imports {name}"
        assert package != "models"


def test_every_part_has_its_level() -> None:
    assert {part(path) for path in SOURCES} == {name for names in LEVELS for name in names}


@pytest.mark.parametrize("path", sorted((ROOT / "models" / "hyenadna").rglob("*.py")), ids=lambda p: p.name)
def test_the_model_package_stands_alone(path: Path) -> None:
    packages = {name.split(".")[0] for name in imports(path)}
    if path.name == "modeling_hyenadna.py":  # never imported here, but copied into models for transformers
        assert packages <= {"math", "torch", "transformers"}
        return
    allowed = {"torch", "numpy", "safetensors", "huggingface_hub", "hyenadna", *sys.stdlib_module_names}
    assert packages <= allowed


def test_models_is_a_source_root_and_no_package() -> None:
    assert not (ROOT / "models" / "__init__.py").exists()


def test_help_loads_nothing_heavy() -> None:
    verbs = ["pretrain", "predict", "embed", "score-variants", "score-sequences", "dependency-map"]
    lines = [
        ["--help"],
        ["--version"],
        *([verb, "--help"] for verb in (*verbs, "attribute", "generate", "doctor")),
    ]
    heavy = [
        "torch",
        "numpy",
        "pysam",
        "pyarrow",
        "safetensors",
        "Bio",
        "hyenadna",
        "yaml",
        "sklearn",
        "matplotlib",
    ]
    script = (
        "import sys; from hyenacli.app import app\n"
        f"for line in {lines!r}:\n"
        "    try: app(line, prog_name='hyena')\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
        f"    loaded = [m for m in {heavy!r} if m in sys.modules]; assert not loaded, (line, loaded)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == len(lines) - 1


def test_nothing_uses_the_packages_that_only_tests_need() -> None:
    for path in [*SOURCES, *(ROOT / "models").rglob("*.py")]:
        assert not {"pytest", "hypothesis"} & {name.split(".")[0] for name in imports(path)}


def test_the_page_on_the_architecture_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    names = {name for name in re.findall(r"`([\w/]+\.py)`", page) if "/" in name}
    assert len(names) > 20
    missing = [
        name
        for name in names
        if not any((root / name).exists() for root in (ROOT, ROOT / "hyenacli", ROOT / "models"))
    ]
    assert not missing
