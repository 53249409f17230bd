"""JSON objects from files."""

import json
from pathlib import Path
from typing import Any

from hyenadna.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelError: the file is not JSON, or its top is no object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"is not valid JSON ({error})", at=path) from error
    if not isinstance(raw, dict):
        raise ModelError("is JSON, but no object", at=path)
    return raw
