"""Settings of a verb as YAML and back."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from hyenacli.errors import UserError, nearest


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


def read_yaml(path: Path, known: list[str]) -> dict[str, Any]:
    """Read settings from YAML; keys are flag names without dashes, `-` and `_` alike.

    Raises:
        UserError: unreadable or not a mapping, or a key the verb does not know (the nearest is named).
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(
            "not valid YAML", at=path, line=mark.line + 1 if mark else None, remedy="write `key: value` lines"
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError("not a mapping of settings", at=path, remedy="write `key: value` lines")
    renamed = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UserError(f"unknown key '{key}'", at=path, remedy=nearest(name, known))
        if value is not None:
            renamed[name] = value
    return renamed
