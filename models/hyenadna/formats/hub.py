"""The Hugging Face Hub: downloads that resume and are checked by hash, and uploads."""

import hashlib
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

from hyenadna.config import PRESETS, PUBLISHED_NAMES, preset_name
from hyenadna.errors import ModelError

from .files import WEIGHTS_SUFFIXES, find_weights

_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
]
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds
_REPEAT = "check the token's rights, the name and the network, then repeat"


def parse_hub_name(spec: str) -> tuple[str, str | None]:
    """Return the repository and the revision of a name, the latter None for the newest.

    Raises:
        ModelError: it is neither org/name nor a published model.

    >>> parse_hub_name("hyenadna-tiny-1k"), parse_hub_name("org/name@v1")
    (('LongSafari/hyenadna-tiny-1k-seqlen-hf', None), ('org/name', 'v1'))
    """
    name, _, revision = spec.partition("@")
    if name in PRESETS:
        raise ModelError(
            f"{name!r} is an architecture with fresh weights, which only training can start from",
            remedy=f"for the published weights say hyenadna-{name}",
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
        "no such file, directory or model name",
        at=spec,
        remedy=f"published models: {published_names} (`hyena models list` says what each is for)",
    )


def fetch(repo: str, revision: str | None) -> Path:
    """Return the local directory of a Hub model; a cached one is used without asking the network.

    Raises:
        ModelError: as `download`.
    """
    hub = _import_hub_to_fetch(repo)
    try:
        folder = Path(
            hub.snapshot_download(repo, revision=revision, allow_patterns=_FILES, local_files_only=True)
        )
        find_weights(folder)
    except (OSError, ValueError):
        return download(repo, revision)
    return folder if (folder / "config.json").is_file() else download(repo, revision)


def download(repo: str, revision: str | None = None, folder: Path | None = None) -> Path:
    """Download the configuration and weights of a Hub model, and compare them with the Hub's hashes.

    What an interrupted download has left is continued, and files that are complete are not fetched again.

    Args:
        repo: org/name.
        revision: branch, tag or commit; None for the newest.
        folder: where to write the files; None for the Hub's cache.

    Returns:
        The folder with the files.

    Raises:
        ModelError: huggingface_hub is not installed, the Hub does not answer or has no such model, or a file
            differs from the Hub's (it is removed).
    """
    hub = _import_hub_to_fetch(repo)
    described = repo if revision is None else f"{repo}@{revision}"
    remedy = "check the name and the network, then repeat: it continues; or give a directory"
    with _errors_in_one_line("cannot be fetched", described, remedy):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name in hub.list_repo_files(repo, revision=revision):
                if any(fnmatch(name, pattern) for pattern in _FILES):
                    _download_file(hub, folder / name, repo, revision)
            return folder
        cached = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=_FILES))
        for file in sorted({file for pattern in _FILES for file in cached.glob(pattern)}):
            _check(file, repo, _metadata(hub, file.name, repo, revision).etag)
    return cached


def check_upload(repo: str) -> Any:
    """Check what an upload needs before there is something to upload, and return the Hub's client package.

    Raises:
        ModelError: huggingface_hub is not installed, the name is not one, or there is no token.
    """
    hub = _import_hub(repo, "uploading needs huggingface_hub", "pip install huggingface_hub")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII) is None:
        raise ModelError("is not a name of the Hub", at=repo, remedy="give org/name")
    # `hub.utils` is no attribute of the package before it is imported
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _errors_in_one_line("cannot be uploaded", repo, _REPEAT):
        validate_repo_id(repo)
        if hub.get_token() is None:
            remedy = "set HF_TOKEN to a token with write access, or run `hf auth login`"
            raise ModelError("uploading needs a token of the Hub", at=repo, remedy=remedy)
    return hub


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a model's folder to the Hub, in place of the model that a repository may have.

    The token is the Hub client's: HF_TOKEN, or what `hf auth login` keeps. Older configuration and weights in
    the repository are removed, files of the same names replaced; others stay.

    Args:
        folder: the files.
        repo: org/name; it is created if it does not exist.
        private: create it private.

    Returns:
        The address of the repository.

    Raises:
        ModelError: as `check_upload`; the Hub refuses it or does not answer, or the repository exists and is
            public against `private`.
    """
    hub = check_upload(repo)
    with _errors_in_one_line("cannot be uploaded", repo, _REPEAT):
        client = hub.HfApi()
        address = client.create_repo(repo, private=private, exist_ok=True)
        if private and not client.model_info(repo).private:
            remedy = "make it private on the Hub, or choose another name"
            raise ModelError("exists already, and is public", at=repo, remedy=remedy)
        client.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Upload model", delete_patterns=list(_FILES)
        )
    return str(address)


def _import_hub(repo: str, problem: str, remedy: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(problem, at=repo, remedy=remedy) from None
    return huggingface_hub


def _import_hub_to_fetch(repo: str) -> Any:
    problem = "no such file or directory, and fetching models by name needs huggingface_hub"
    files = f"download the files of https://huggingface.co/{repo} (config.json, model.safetensors)"
    return _import_hub(repo, problem, f"pip install huggingface_hub, or {files} into a folder and give that")


@contextmanager
def _errors_in_one_line(problem: str, at: str, remedy: str) -> Iterator[None]:
    """Turn errors of the Hub and of the network into a ModelError.

    Those of the HTTP client are no OSError in every version; the bases of the Hub's own have them. A
    RuntimeError says which file could not be uploaded; its cause says why.
    """
    from huggingface_hub.errors import HfHubHTTPError

    errors: tuple[type[BaseException], ...] = (
        OSError,
        ValueError,
        RuntimeError,
        HTTPException,
        *HfHubHTTPError.__bases__,
    )
    try:
        yield
    except ModelError:
        raise
    except errors as error:
        shown = error.__cause__ or error if isinstance(error, RuntimeError) else error
        reason = (str(shown).splitlines() or [type(shown).__name__])[0]
        raise ModelError(f"{problem} ({reason.rstrip('.')})", at=at, remedy=remedy) from error


def _metadata(hub: Any, name: str, repo: str, revision: str | None) -> Any:
    """Return what the Hub says of a file: etag (its hash), size, and location (where its bytes are)."""
    return hub.get_hf_file_metadata(hub.hf_hub_url(repo, name, revision=revision))


def _download_file(hub: Any, target: Path, repo: str, revision: str | None) -> None:
    """Download one file, from where an interrupted download of the same version has stopped.

    The Hub's own client begins a file anew in every process.
    """
    facts = _metadata(hub, target.name, repo, revision)
    if target.is_file() and target.stat().st_size == facts.size:
        _check(target, repo, facts.etag)
        return
    draft = target.with_name(f".{target.name}.{facts.etag[:16]}.incomplete")
    headers = {}
    if facts.location == hub.hf_hub_url(repo, target.name, revision=revision):  # others are signed addresses
        headers = {
            key: value for key, value in hub.utils.build_hf_headers().items() if key == "authorization"
        }
    if draft.exists():
        headers["Range"] = f"bytes={draft.stat().st_size}-"
    request = urllib.request.Request(facts.location, headers=headers)  # noqa: S310  (the Hub's own address)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, draft.open("ab") as stream:  # noqa: S310
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            stream.truncate(0)
        shutil.copyfileobj(response, stream)
    if draft.stat().st_size < facts.size:
        raise OSError(f"{target.name}: the connection was cut after {draft.stat().st_size:,} bytes")
    _check(draft, repo, facts.etag)
    draft.replace(target)


def _check(file: Path, repo: str, expected: str) -> None:
    """Compare a file with the hash that the Hub has for it, and remove it if they differ.

    The Hub names large files by their sha256, and others by their git blob (a sha1).
    """
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(expected) == 40:
        digest.update(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        file.resolve().unlink()
        file.unlink(missing_ok=True)
        raise ModelError(
            f"{file.name} differs from the Hub's: its hash is {digest.hexdigest()}, not {expected}",
            at=repo,
            remedy="it was removed; repeat the command",
        )
