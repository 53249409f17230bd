"""Pages that are made for the site: `reference.md` from the code, tutorials from their notebooks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from hyenacli.app import app
from hyenacli.options import GENERAL, literal_words


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command that is no group, with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return (
        " ".join(text.split())
        .replace("\\[", "[")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
    )


def value_of(parameter: Any) -> str:
    """Return what stands behind a flag: its words, or the name of its value; nothing for a switch."""
    if getattr(parameter, "is_flag", False):
        return ""
    return cell(parameter.metavar or "|".join(literal_words(parameter.type_descriptor.annotation)) or "N")


def rows(command: Any, *, general: bool) -> Iterator[str]:
    """Yield a row per parameter: those that nearly every command has, or the others."""
    for parameter in command.params:
        if (
            parameter.name == "help"
            or (getattr(parameter, "rich_help_panel", None) == GENERAL) is not general
        ):
            continue
        is_option = parameter.param_type_name == "option"
        names = ", ".join(f"`{name}`" for name in parameter.opts) if is_option else f"`{value_of(parameter)}`"
        value = value_of(parameter) if is_option else ""
        required = "**required** " if parameter.required else ""
        default = parameter.default
        shown = default not in (None, False, (), []) and isinstance(default, str | int | float | Path)
        text = cell(parameter.help or "") + (f" Default `{default}`." if shown else "")
        yield f"| {names} {value} | {required}{text} |"


def page() -> str:
    """Return the page."""
    lines = [
        "# Options of every command",
        "",
        "Made from the code; `hyena help COMMAND` prints the same.",
    ]
    general: dict[str, None] = {}
    for name, command in commands(get_command(app), "hyena"):
        text = (command.help or "").replace("\\[", "[").replace("\f", "").strip()
        paragraphs = [*map(cell, text.split("\n\n")), "\n".join(["```console", *command.examples, "```"])]
        lines += ["", f"## {name}", "", "\n\n".join(paragraphs), "", "| option | meaning |", "|---|---|"]
        lines += rows(command, general=False)
        general.update(dict.fromkeys(rows(command, general=True)))
    lines += ["", "## Options of nearly all commands", "", "| option | meaning |", "|---|---|", *general]
    return "\n".join(lines) + "\n"


def tutorial(path: Path) -> str:
    """Return a notebook as Markdown: its text, its code and what the code printed."""
    parts = []
    for cell_of_notebook in json.loads(path.read_text())["cells"]:
        text = "".join(cell_of_notebook["source"])
        parts.append(text if cell_of_notebook["cell_type"] == "markdown" else f"```python\n{text}\n```")
        outputs = cell_of_notebook.get("outputs", [])
        parts.extend(f"```text\n{''.join(output['text'])}```" for output in outputs)
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to the site; mkdocs calls this."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference.md", content=page()))
    for path in sorted(Path(config["docs_dir"]).glob("tutorials/*.ipynb")):
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=tutorial(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link the pages of the tutorials rather than the notebooks; mkdocs calls this for each page."""
    return markdown.replace(".ipynb)", ".md)")
