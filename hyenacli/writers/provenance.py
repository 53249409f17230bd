"""What outputs say about how they were made."""

from typing import Any

from hyenacli import __version__
from hyenacli.settings_file import to_dict
from hyenadna import HyenaDNA, model_sha256

COORDINATES = "start and end are 0-based, half-open"


def provenance_of(settings: Any, model: HyenaDNA, **more: Any) -> dict[str, Any]:
    """Return version, model and settings, which make an output again, and `more` about what is in it."""
    facts = {"hyena_version": __version__, "model_sha256": model_sha256(model)}
    return {**facts, **more, "settings": to_dict(settings)}
