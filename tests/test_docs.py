"""The documentation: its links, and the page that is made from the code."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        if name == "reference.md":  # made when the site is built
            continue
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_finding_is_on_its_page() -> None:
    page = (ROOT / "docs" / "findings.md").read_text()
    scripts = {path.name for path in (ROOT / "findings").glob("*.sh")}
    assert set(re.findall(r"findings/([\w-]+\.sh)\)", page)) == scripts


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) < 7500


def test_the_reference_is_made_of_the_code() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "reference.py"))["page"]()
    assert "<bool>" not in made
    assert "## hyena models download" in made


@pytest.mark.slow
def test_the_site_builds_offline(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True)
    assert (tmp_path / "score-sequences" / "index.html").exists()
    assert "--all-snvs" in (tmp_path / "reference" / "index.html").read_text()
    assert "statuses:" in (tmp_path / "tutorials" / "embeddings" / "index.html").read_text()
