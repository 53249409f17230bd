"""Settings of a verb as YAML and back."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from hyenacli.errors import UserError, nearest, quote


def to_dict(settings: Any) -> dict[str, Any]:
    """A verb's settings as plain YAML and JSON values."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return [plain(v) for v in value] if isinstance(value, list) else value

    return {f.name: plain(getattr(settings, f.name)) for f in fields(settings)}


def to_yaml(settings: Any) -> str:
    """Settings as the YAML that `--config` reads."""
    import yaml

    text: str = yaml.safe_dump(to_dict(settings), sort_keys=False)
    return text


def load_yaml(path: Path, remedy: str, *, as_text: bool) -> Any:
    """Read a YAML file of lists, mappings and single values.

    Args:
        path: the file.
        remedy: what its lines should be like.
        as_text: leave values as they are written, so that 1e5, NO and 2024-01-01 can be names; else numbers,
            true and null become what they mean.

    Raises:
        UserError: it cannot be read, is no YAML, or has a key twice.
    """
    import yaml

    class Loader(yaml.BaseLoader if as_text else yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            lines: dict[str, int] = {}
            for key, _ in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in lines:
                    what = f"{quote(name)} is there twice, first in line {lines[name]}"
                    raise UserError(what, at=path, line=line, remedy="rename one, or join the two")
                lines[name] = line
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_bytes(), Loader)  # noqa: S506  (builds plain values only)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", at=path) from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        raise UserError("not valid YAML", at=path, line=line, remedy=remedy) from error


def read_yaml(path: Path, known: list[str], *, as_text: bool = False) -> dict[str, Any]:
    """Read settings from YAML; keys are flag names without dashes, `-` and `_` alike.

    Raises:
        UserError: unreadable or not a mapping, or a key the verb does not know (the nearest is named).
    """
    remedy = "write `key: value` lines"
    values = load_yaml(path, remedy, as_text=as_text)
    if values in (None, ""):
        return {}
    if not isinstance(values, dict):
        raise UserError("not a mapping of settings", at=path, remedy=remedy)
    renamed = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UserError(f"unknown key {quote(str(key))}", at=path, remedy=nearest(name, known))
        if value not in (None, *(("", "~", "null") if as_text else ())):
            renamed[name] = value
    return renamed
