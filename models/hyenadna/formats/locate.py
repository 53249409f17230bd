"""Location of a model's files from a --model argument: a path, or a name on the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyenadna.config import PRESETS, PUBLISHED_NAMES, preset_name
from hyenadna.errors import ModelError

from .files import WEIGHTS_SUFFIXES, find_weights

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_HUB_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
]


@dataclass(frozen=True)
class ModelFiles:
    """One model on disk, or one adapter."""

    weights: Path
    config: Path


def locate(spec: str | Path) -> ModelFiles:
    """Return the files of a model: a path where one exists, otherwise a name on the Hugging Face Hub.

    Raises:
        ModelError: there is no such path, the name cannot be one of the Hub, or files are missing.
    """
    path = Path(spec)
    if path.is_file():
        return ModelFiles(path, _config_beside(path))
    if path.is_dir():
        return _in_directory(_best_of_run(path))
    repo, revision = _hub_name(str(spec))
    return _in_directory(_fetch(repo, revision))


def _best_of_run(folder: Path) -> Path:
    """Return the best checkpoint of a run directory, else its last; any other directory as it is."""
    if (folder / "config.json").exists() or not (folder / "checkpoints").is_dir():
        return folder
    for name in ("best", "last"):
        if (folder / "checkpoints" / name).is_dir():
            return folder / "checkpoints" / name
    raise ModelError(
        "is a run without a checkpoint yet", at=folder, remedy="wait for the first, or resume the run"
    )


def _in_directory(folder: Path) -> ModelFiles:
    config, adapter = folder / "config.json", folder / ADAPTER_CONFIG
    if not config.is_file() and adapter.is_file():
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise ModelError(f"has an {ADAPTER_CONFIG}, but no {ADAPTER_WEIGHTS}", at=folder)
        return ModelFiles(folder / ADAPTER_WEIGHTS, adapter)
    if not config.is_file():
        raise ModelError(
            "has no config.json",
            at=folder,
            remedy="give a model directory, or a weights file with its configuration",
        )
    return ModelFiles(find_weights(folder), config)


def _config_beside(weights: Path) -> Path:
    config = weights.parent / "config.json"
    if config.is_file():
        return config
    others = sorted(weights.parent.glob("*config.json"))
    if len(others) == 1:
        return others[0]
    message = f"has {len(others)} files *config.json beside it" if others else "has no config.json beside it"
    raise ModelError(message, at=weights, remedy="if these are weights, put their config.json there")


def _hub_name(spec: str) -> tuple[str, str | None]:
    """Return the repository and the revision of a name."""
    name, _, revision = spec.partition("@")
    if name in PRESETS:
        published = PUBLISHED_NAMES[name]
        raise ModelError(
            f"{name!r} is an architecture with fresh weights, which only training can start from",
            remedy=f"for the published weights say {published}",
        )
    owner, slash, rest = name.partition("/")
    if (
        slash
        and owner not in ("", ".", "..", "~")
        and rest
        and "/" not in rest
        and Path(name).suffix not in WEIGHTS_SUFFIXES
    ):
        return name, revision or None
    short = preset_name(name)
    if short is not None and not slash:
        return f"LongSafari/{PUBLISHED_NAMES[short]}-hf", revision or None
    published_names = ", ".join(f"hyenadna-{preset}" for preset in PRESETS)
    raise ModelError(
        "no such file, directory or model name", at=spec, remedy=f"published models: {published_names}"
    )


def _fetch(repo: str, revision: str | None) -> Path:
    """Return the local directory of a Hub model; a cached one is used without asking the network.

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
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        where = repo if revision is None else f"{repo}@{revision}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"cannot be fetched ({reason})",
            at=where,
            remedy="check the name and the network, or give a directory",
        ) from error


def _cached(hub: Any, repo: str, revision: str | None) -> Path | None:
    """Return the cached snapshot if it is there and has weights."""
    try:
        folder = Path(
            hub.snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES, local_files_only=True)
        )
        find_weights(folder)
    except (OSError, ValueError):
        return None
    return folder if (folder / "config.json").is_file() else None
