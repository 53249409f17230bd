"""From what a user wrote after --model to the files it means."""

from dataclasses import dataclass
from pathlib import Path

from hyenadna.config import PRESETS, PUBLISHED_NAMES, preset_name
from hyenadna.errors import ModelError

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
)
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SUFFIXES = {".safetensors", ".bin", ".ckpt", ".pt", ".pth"}


@dataclass(frozen=True)
class ModelFiles:
    """One model on disk, or one adapter."""

    weights: Path
    config: Path


def locate(spec: str | Path) -> ModelFiles:
    """The files of a model: a path where one exists, otherwise a name on the Hugging Face Hub.

    Raises:
        ModelError: there is no such path, the name cannot be one of the Hub, or files are missing.
    """
    path = Path(spec)
    if path.is_file():
        return ModelFiles(path, _config_beside(path))
    if path.is_dir():
        return _in_directory(_best_of_run(path))
    from .hub import fetch

    repo, revision = _hub_name(str(spec))
    return _in_directory(fetch(repo, revision))


def _best_of_run(folder: Path) -> Path:
    """The best checkpoint of a run directory, else its last one; any other directory is itself."""
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


def find_weights(folder: Path) -> Path:
    """The weights file of a model directory: one with a published name, else the only one there is.

    Raises:
        ModelError: there is none, or several that could be meant.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(path.name for path in others)
        raise ModelError(f"has several weights files ({names})", at=folder, remedy="name the file itself")
    raise ModelError(
        "has a config.json, but no weights", at=folder, remedy=f"expected one of {', '.join(_WEIGHTS)}"
    )


def _config_beside(weights: Path) -> Path:
    config = weights.parent / "config.json"
    if config.is_file():
        return config
    others = sorted(weights.parent.glob("*config.json"))
    if len(others) == 1:
        return others[0]
    found = f"has {len(others)} files *config.json beside it" if others else "has no config.json beside it"
    raise ModelError(found, at=weights, remedy="if these are weights, put their config.json there")


def _hub_name(spec: str) -> tuple[str, str | None]:
    """The repository and the revision a name means."""
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
        and Path(name).suffix not in _SUFFIXES
    ):
        return name, revision or None
    short = preset_name(name)
    if short is not None and not slash:
        return f"LongSafari/{PUBLISHED_NAMES[short]}-hf", revision or None
    known = ", ".join(f"hyenadna-{preset}" for preset in PRESETS)
    raise ModelError("no such file, directory or model name", at=spec, remedy=f"published models: {known}")
