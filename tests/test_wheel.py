"""The wheel holds both packages, and imports beside a user's own models.py."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import hyenacli
from hyenadna import save_model
from tests.toys import tiny_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    script = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_what_is_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("hyenacli/app.py", "hyenacli/py.typed", "hyenadna/model.py", "hyenadna/py.typed"):
        assert name in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"hyenacli", "hyenadna"}


@pytest.mark.parametrize(
    "launcher", [[], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]]
)
def test_it_runs_beside_a_models_module(wheel: Path, tmp_path: Path, launcher: list[str]) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    zipfile.ZipFile(wheel).extractall(site)
    here.mkdir()
    (here / "models.py").write_text("raise SystemExit('the wrong module')\n")
    save_model(tiny_model(), tmp_path / "model")
    command = [sys.executable, *launcher, "-m", "hyenacli", "models", "info", tmp_path / "model"]
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=True)
    assert "native" in done.stdout


@pytest.mark.slow
def test_the_source_archive_installs_without_its_tree(tmp_path: Path) -> None:
    script = f"from hatchling.build import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "hyenacli/app.py"} <= names
    site, offline = tmp_path / "site", ("--no-deps", "--no-build-isolation", "--no-index")
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", site, archive]
    subprocess.run(pip, cwd=tmp_path, check=True, capture_output=True)
    command = [sys.executable, "-m", "hyenacli", "--version"]
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"hyena {hyenacli.__version__}\n"
