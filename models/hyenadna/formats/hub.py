"""Models from the Hugging Face Hub, through its cache."""

from pathlib import Path
from typing import Any

from hyenadna.errors import ModelError

from .locate import find_weights

_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
]


def fetch(repo: str, revision: str | None) -> Path:
    """The local directory of a Hub model; what the cache holds is used without asking the network.

    Args:
        repo: "org/name".
        revision: branch, tag or commit; the default branch without it.

    Raises:
        ModelError: huggingface_hub is not installed, or the model cannot be had.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(
            "no such file or directory, and fetching models by name needs huggingface_hub",
            at=repo,
            remedy="pip install 'hyenacli[hub]'",
        ) from None
    cached = _cached(huggingface_hub, repo, revision)
    if cached is not None:
        return cached
    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        where = repo if revision is None else f"{repo}@{revision}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"cannot be fetched ({reason})",
            at=where,
            remedy="check the name and the network, or give a directory",
        ) from error


def _cached(hub: Any, repo: str, revision: str | None) -> Path | None:
    """The cached snapshot, if it is there and complete enough to hold weights."""
    try:
        folder = Path(
            hub.snapshot_download(repo, revision=revision, allow_patterns=_FILES, local_files_only=True)
        )
        find_weights(folder)
    except (OSError, ValueError):
        return None
    return folder if (folder / "config.json").is_file() else None
