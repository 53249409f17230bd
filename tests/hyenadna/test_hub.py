"""Models by name: a server on this machine answers as the Hugging Face Hub does."""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hyenacli.app import app
from hyenadna import (
    HeadConfig,
    HyenaConfig,
    HyenaDNA,
    ModelError,
    convert,
    download,
    load_model,
    model_sha256,
    save_model,
)

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789" * 4
REPOSITORY = "LongSafari/hyenadna-tiny-1k-seqlen-hf"


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer(ThreadingHTTPServer):
    """Repositories in memory; large files are redirected to another path, as to the Hub's file servers."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files
        self.cut_after: int | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        self.served = dict(files)
        self.refuse_with: int | None = None
        self.private: bool | None = None  # of org/new, which does not exist before it is created
        self.blobs: dict[str, bytes] = {}
        self.commit: dict[str, bytes | None] = {}


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_POST(self) -> None:
        content = self.content()
        server, address = self.server, f"http://{self.headers['Host']}"
        if server.refuse_with is not None or self.headers.get("Authorization") != "Bearer hf_secret":
            self.send(server.refuse_with or 401, b"", {}, True)
            return
        if self.path == "/api/repos/create":
            request = json.loads(content)
            status = 200 if server.private is None else 409
            if server.private is None:
                server.private = request.get("private", False) or request.get("visibility") == "private"
            answer: object = {"url": f"{address}/{request['organization']}/{request['name']}"}
            self.send(status, json.dumps(answer).encode(), {}, True)
            return
        if self.path == "/api/validate-yaml":  # of the card
            assert json.loads(content)["content"].startswith("---\nlibrary_name: transformers\n")
            answer = {"errors": [], "warnings": []}
        elif self.path == "/api/models/org/new/preupload/main":
            files = json.loads(content)["files"]
            modes = [
                {"path": file["path"], "shouldIgnore": False, "uploadMode": mode}
                for file in files
                for mode in ["lfs" if file["path"].endswith(".safetensors") else "regular"]
            ]
            answer = {"files": modes}
        elif self.path == "/org/new.git/info/lfs/objects/batch":
            [blob] = json.loads(content)["objects"]
            answer = {"objects": [blob | {"actions": {"upload": {"href": f"{address}/lfs/{blob['oid']}"}}}]}
        else:
            assert self.path == "/api/models/org/new/commit/main", self.path
            self.take(map(json.loads, content.splitlines()))
            answer = {"commitUrl": f"{address}/org/new/commit/{COMMIT}", "commitOid": COMMIT}
        self.send(200, json.dumps(answer).encode(), {}, True)

    def take(self, operations: Iterable[dict[str, Any]]) -> None:
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                self.server.commit[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                self.server.commit[value["path"]] = self.server.blobs[value["oid"]]
            elif operation["key"] == "deletedFile":
                self.server.commit[value["path"]] = None

    def content(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def do_PUT(self) -> None:
        content = self.content()
        assert hashlib.sha256(content).hexdigest() == self.path.removeprefix("/lfs/")
        self.server.blobs[self.path.removeprefix("/lfs/")] = content
        self.send(200, b"", {}, True)

    def answer(self, *, body: bool) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self.send(200, json.dumps([self.entry(name) for name in self.server.files]).encode(), {}, body)
        elif self.path.startswith("/api/models/org/new/tree/"):
            old = [self.entry(name) for name in ("model.safetensors", "pytorch_model.bin", "NOTES.md")]
            self.send(200, json.dumps(old).encode(), {}, body)
        elif self.path == "/api/models/org/new" and self.server.private is not None:
            facts = {"id": "org/new", "private": self.server.private, "siblings": []}
            self.send(200, json.dumps(facts).encode(), {}, body)
        elif self.path.startswith(f"/api/models/{REPOSITORY}"):
            siblings = [{"rfilename": name} for name in self.server.files]
            self.send(
                200, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode(), {}, body
            )
        elif match := re.fullmatch(rf"/{REPOSITORY}/resolve/([^/]+)/(.+)", self.path):
            self.resolve(match[2], body)
        elif self.path.startswith("/cdn/"):
            self.ranged(self.server.served[self.path.removeprefix("/cdn/")], body)
        else:
            code = "RepoNotFound" if "resolve" in self.path or "/api/" in self.path else "EntryNotFound"
            self.send(404, b"", {"X-Error-Code": code, "X-Error-Message": "not there"}, body)

    def entry(self, name: str) -> dict[str, object]:
        content = self.server.files.get(name, b"old")
        entry = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
        if name.endswith(".json"):
            return entry
        sha256 = hashlib.sha256(content).hexdigest()
        return entry | {"lfs": {"oid": sha256, "size": len(content), "pointerSize": 130}}

    def resolve(self, name: str, body: bool) -> None:
        content = self.server.files.get(name)
        if content is None:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            return
        headers = {"X-Repo-Commit": COMMIT}
        if name.endswith(".json"):
            self.send(200, content, headers | {"ETag": f'"{git_blob(content)}"'}, body)
            return
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        port = self.server.server_address[1]  # another host, as the Hub's file servers are
        self.send(302, b"", headers | {"Location": f"http://localhost:{port}/cdn/{name}"}, body)

    def ranged(self, content: bytes, body: bool) -> None:
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(requested[1]) if requested else 0
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if requested else {}
        self.send(206 if requested else 200, content[start:], headers, body)

    def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.cut_after
        if body and cut is not None and self.path.startswith("/cdn/"):
            self.wfile.write(content[:cut])
            self.wfile.flush()
            self.close_connection = True
            return
        if body:
            self.wfile.write(content)


@pytest.fixture(scope="module")
def model() -> HyenaDNA:
    return HyenaDNA(HyenaConfig(d_model=8, n_layer=1, d_inner=16, l_max=40, filter_order=8)).eval()


@pytest.fixture
def hub(model: HyenaDNA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    save_model(model, tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "hf", "hf")
    files = {file.name: file.read_bytes() for file in (tmp_path / "hf").iterdir() if file.is_file()}
    server = HubServer(files | {"modeling_hyena.py": b"raise SystemExit('remote code was run')"})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    from huggingface_hub import constants, hf_api, utils

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(hf_api.api, "endpoint", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    utils.disable_progress_bars()
    yield server
    server.shutdown()
    server.server_close()


def test_a_name_is_fetched_once_and_then_read_from_the_cache(hub: HubServer, model: HyenaDNA) -> None:
    assert model_sha256(load_model("hyenadna-tiny-1k")) == model_sha256(model)
    assert ("GET", "/cdn/model.safetensors", None) in hub.requests
    assert not any("modeling_hyena.py" in path for _, path, _ in hub.requests)
    hub.requests.clear()
    for spelling in ("hyenadna-tiny-1k", "hyenadna-tiny-1k-seqlen", REPOSITORY):
        assert model_sha256(load_model(spelling)) == model_sha256(model)
    assert not hub.requests


def test_a_folder_needs_no_hub_afterwards(hub: HubServer, model: HyenaDNA, tmp_path: Path) -> None:
    folder = download(REPOSITORY, None, tmp_path / "mine")
    assert folder == tmp_path / "mine"
    hub.requests.clear()
    assert model_sha256(load_model(folder)) == model_sha256(model)
    assert not hub.requests
    download(REPOSITORY, None, folder)
    assert not any(path.startswith("/cdn/") and method == "GET" for method, path, _ in hub.requests)


def test_a_connection_that_is_cut_is_continued(hub: HubServer, model: HyenaDNA, tmp_path: Path) -> None:
    hub.cut_after = 500
    with pytest.raises(ModelError, match=r"^LongSafari/\S+: cannot be fetched \(.*it continues") as caught:
        download(REPOSITORY, None, tmp_path / "mine")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mine" / "model.safetensors").exists()
    hub.cut_after = None
    hub.requests.clear()
    assert model_sha256(load_model(download(REPOSITORY, None, tmp_path / "mine"))) == model_sha256(model)
    ranges = [requested for method, path, requested in hub.requests if method == "GET" and "/cdn/" in path]
    assert ranges == ["bytes=500-"]


def test_bytes_that_differ_from_the_hash_are_removed(hub: HubServer, model: HyenaDNA, tmp_path: Path) -> None:
    good = hub.served["model.safetensors"]
    hub.served["model.safetensors"] = good[:-1] + bytes([good[-1] ^ 1])
    for folder in (tmp_path / "mine", None):
        with pytest.raises(ModelError, match=r"differs from the Hub's: its hash is \w{64}.*repeat"):
            download(REPOSITORY, None, folder)
    assert not (tmp_path / "mine" / "model.safetensors").exists()
    hub.served["model.safetensors"] = good
    assert model_sha256(load_model(REPOSITORY)) == model_sha256(model)
    assert model_sha256(load_model(download(REPOSITORY, None, tmp_path / "mine"))) == model_sha256(model)


def test_half_a_cached_snapshot_is_fetched_again(hub: HubServer, model: HyenaDNA) -> None:
    folder = download(REPOSITORY)
    (folder / "model.safetensors").unlink()
    assert model_sha256(load_model(REPOSITORY)) == model_sha256(model)


def test_a_model_that_the_hub_does_not_have(hub: HubServer) -> None:
    with pytest.raises(ModelError, match=r"^org/name@v1: cannot be fetched \(.*\); check the name") as caught:
        load_model("org/name@v1")
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ModelError, match=r"cannot be fetched \(.*\); check the name and the network"):
        load_model("hyenadna-tiny-1k")


def test_without_the_client(monkeypatch: pytest.MonkeyPatch, model: HyenaDNA, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"pip install huggingface_hub, or download .*co/org/name \(config"):
        load_model("org/name")
    monkeypatch.chdir(tmp_path)
    save_model(model, "org/name")
    assert model_sha256(load_model("org/name")) == model_sha256(model)  # a path that exists needs no hub


@pytest.fixture
def push(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            app(["models", "push", *map(str, arguments)], prog_name="hyena")
        err = capsys.readouterr().err
        return end.value.code, err.rstrip("\n").removeprefix("hyena: error: ")

    return run


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client, about its own call
def test_push_uploads_the_export_with_its_card(
    hub: HubServer, push: Any, model: HyenaDNA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # between attempts
    headed = HyenaDNA(replace(model.config, head=HeadConfig("binary", 2, ("no", "yes")))).eval()
    save_model(headed, tmp_path / "run")
    code, err = push(tmp_path / "run", "org/new", "--private")
    assert (code, hub.private) == (0, True), err
    assert "use it with -m org/new" in err
    assert hub.commit.pop("pytorch_model.bin") is None  # weights of before would make it ambiguous
    assert "NOTES.md" not in hub.commit
    uploaded = tmp_path / "uploaded"
    uploaded.mkdir()
    for name, content in hub.commit.items():
        assert content is not None
        (uploaded / name).write_bytes(content)
    assert model_sha256(load_model(uploaded)) == model_sha256(headed)
    convert(tmp_path / "run", tmp_path / "export", "hf")
    assert set(hub.commit) == {file.name for file in (tmp_path / "export").iterdir()}
    card = (uploaded / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert 'AutoModelForSequenceClassification.from_pretrained("org/new", trust_remote_code=True)' in card
    assert push(tmp_path / "run", "org/new", "--private")[0] == 0  # again, into the same repository
    hub.private = False
    hub.commit.clear()
    problem = "org/new: exists already, and is public; make it private on the Hub, or choose another name"
    assert push(tmp_path / "run", "org/new", "--private") == (1, problem)
    assert not hub.commit


def test_push_says_in_a_line_why_not(
    hub: HubServer, push: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = tmp_path / "native"
    # as in a fresh process, where nothing has imported it yet
    monkeypatch.delattr("huggingface_hub.utils", raising=False)
    assert push(tmp_path / "none", "new") == (1, "new: is not a name of the Hub; give org/name")
    code, err = push(native, "org/new")
    assert code == 1
    assert err.startswith("org/new: uploading needs a token of the Hub; set HF_TOKEN")
    for token, refusal, status in [
        ("hf_else", None, "401"),
        ("hf_secret", 403, "403"),
        ("hf_secret", 500, "500"),
    ]:
        monkeypatch.setenv("HF_TOKEN", token)
        hub.refuse_with = refusal
        code, err = push(native, "org/new")
        assert code == 1
        assert err.startswith("org/new: cannot be uploaded (")
        assert status in err
        assert "\n" not in err
    assert not hub.commit
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    hub.shutdown()
    hub.server_close()
    code, err = push(native, "org/new")
    assert code == 1
    assert err.startswith("org/new: cannot be uploaded (")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert push(native, "org/new") == (
        1,
        "org/new: uploading needs huggingface_hub; pip install huggingface_hub",
    )
