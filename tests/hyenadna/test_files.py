"""Hostile and damaged torch files."""

import builtins
import contextlib
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from hyenadna import ModelError
from hyenadna.formats.files import read_tensors, read_torch


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any, state: Any = None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.call

    def __call__(self) -> None:
        """The pickler wants what it calls to be callable."""


def hostile(marker: Path) -> dict[str, Any]:
    shell = Runs(os.system, f"touch {marker}")
    return {
        "system": shell,
        "eval": Runs(builtins.eval, f"__import__('os').mkdir({str(marker)!r})"),
        "exec": Runs(builtins.exec, f"__import__('os').mkdir({str(marker)!r})"),
        "in state": Runs(OrderedDict, state={"inner": shell}),
        "deep": [{"a": (shell, {"b": [shell]})}],
        "getattr": Runs(Runs(getattr, Runs(__import__, "os"), "system"), f"touch {marker}"),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", list(hostile(Path("x"))))
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, name: str, zipped: bool) -> None:
    marker, file = tmp_path / "pwned", tmp_path / "w.ckpt"
    weights = {"a": torch.arange(3.0)}
    torch.save(
        {"state_dict": weights, "x": hostile(marker)[name]}, file, _use_new_zipfile_serialization=zipped
    )
    read = read_torch(file)
    assert list(read) == ["a"]
    assert read["a"].tolist() == [0, 1, 2]
    assert not marker.exists()
    torch.load(file, weights_only=False)  # the attack is real: without the restriction it runs
    assert marker.exists()


# GLOBAL torch._utils _rebuild_tensor_v2, then BUILD with a state: would change the function for good
SETS_AN_ATTRIBUTE = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."


def replace_program(file: Path, program: bytes) -> None:
    """Put another pickle into the torch zip at `file`."""
    good = io.BytesIO(file.read_bytes())
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, program if name.endswith("/data.pkl") else source.read(name))


def test_a_pickle_sets_no_attribute_of_what_it_names(tmp_path: Path) -> None:
    zipped, legacy = tmp_path / "zip.ckpt", tmp_path / "legacy.ckpt"
    torch.save({"a": torch.ones(1)}, zipped)
    replace_program(zipped, SETS_AN_ATTRIBUTE)
    legacy.write_bytes(legacy_file(SETS_AN_ATTRIBUTE))
    for file in (zipped, legacy):
        with pytest.raises(ModelError):
            read_torch(file)
        assert not vars(torch._utils._rebuild_tensor_v2)
    assert torch.load(zipped, weights_only=False).a == 1  # the attack is real
    del torch._utils._rebuild_tensor_v2.a


def legacy_file(program: bytes) -> bytes:
    """Return a legacy file: magic number, version, machine, program, keys of the storages that follow."""
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    return head + program + pickle.dumps([], 2)


@pytest.mark.parametrize("part", range(4), ids=["magic number", "version", "machine", "storage keys"])
def test_every_pickle_of_a_legacy_file_is_restricted(tmp_path: Path, part: int) -> None:
    marker, file = tmp_path / "pwned", tmp_path / "w.ckpt"
    good: list[Any] = [0x1950A86A20F9469CFC6C, 1001, {}, []]
    good[part] = Runs(os.system, f"touch {marker}")
    *head, keys = (pickle.dumps(value, 2) for value in good)
    file.write_bytes(b"".join([*head, pickle.dumps({}, 2), keys]))
    with pytest.raises(ModelError):
        read_torch(file)
    assert not marker.exists()
    with contextlib.suppress(Exception):
        torch.load(file, weights_only=False)
    assert marker.exists()  # the attack is real


@pytest.mark.parametrize("name", ["torch.nn.Linear", "torch.nn.Parameter", "os.system"])
def test_the_source_code_of_a_container_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """torch would look the class up, and write a patch file if its `dump_patches` says so."""
    monkeypatch.chdir(tmp_path)
    module, _, attribute = name.rpartition(".")
    container = f"c{module}\n{attribute}\n".encode()
    program = b"\x80\x02(X\x06\x00\x00\x00module" + container + b"X\x01\x00\x00\x00fX\x01\x00\x00\x00stQ."
    file = tmp_path / "w.ckpt"
    file.write_bytes(legacy_file(program))
    with pytest.raises(ModelError):
        read_torch(file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("links", [False, True])
def test_a_tar_archive_is_not_unpacked(tmp_path: Path, links: bool) -> None:
    """torch reads a format of its earliest days, which is a tar archive of pickles."""
    marker, file = tmp_path / "pwned", tmp_path / "w.ckpt"
    program = pickle.dumps(Runs(os.system, f"touch {marker}"), 2)
    (tmp_path / "elsewhere").write_bytes(program)
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo("storages")
        if links:
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
            archive.addfile(member)
        else:
            member.size = len(program)
            archive.addfile(member, io.BytesIO(program))
    with pytest.raises(ModelError, match="is a tar archive"):
        read_torch(file)
    assert not marker.exists()


@pytest.mark.parametrize("checked", [True, False])
def test_torchscript_is_never_given_to_torch_jit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    file = tmp_path / "w.pt"
    torch.save({"a": torch.ones(1)}, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("w/constants.pkl", pickle.dumps((), 2))
    calls: list[object] = []
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: calls.append(1))
    if not checked:  # as an archive whose names the two zip readers see differently
        names = zipfile.ZipFile.namelist
        monkeypatch.setattr(
            zipfile.ZipFile, "namelist", lambda a: [n for n in names(a) if not n.endswith("constants.pkl")]
        )
    with pytest.raises(ModelError, match="TorchScript"):
        read_torch(file)
    assert not calls


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    file = tmp_path / "w.ckpt"
    torch.save({"a": torch.full((100,), 1.25)}, file)
    raw = file.read_bytes()
    file.write_bytes(raw.replace(b"\0\0\xa0\x3f", b"\0\0\xa1\x3f", 1))
    with pytest.raises(ModelError, match="is damaged at w/data/0"):
        read_torch(file)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w"])
def test_content_decides_and_not_the_name(tmp_path: Path, name: str, zipped: bool) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_tensors(tmp_path / name)["a"], torch.ones(2))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_are_those_torch_reads(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    saved = {
        "whole": base,
        "transposed": base.T,
        "slice": base[1:3, 2:5],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "double": torch.ones(3, dtype=torch.float64),
        "long": torch.tensor([1 << 40]),
        "scalar": torch.tensor(5.0),
        "empty": torch.empty(0, 3),
    }
    file = tmp_path / "w.bin"
    torch.save(OrderedDict(saved), file, _use_new_zipfile_serialization=zipped)
    read = read_torch(file)
    for name, tensor in saved.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name
    assert read["whole"].untyped_storage().data_ptr() == read["slice"].untyped_storage().data_ptr()


def test_only_the_state_dict_is_read(tmp_path: Path) -> None:
    file = tmp_path / "w.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "optimizer_states": [{"m": torch.ones(99)}]}, file)
    assert list(read_torch(file)) == ["a"]


def torchscript(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}, 2))
        archive.writestr("m/constants.pkl", b"")


def other_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")


def big_endian(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}, 2))
        archive.writestr("m/byteorder", b"big")


def out_of_bounds(file: Path) -> None:
    good = io.BytesIO()
    torch.save({"a": torch.ones(2, 3)}, good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, data.replace(b"K\x02K\x03\x86", b"K\x02K\xff\x86"))


def compressed(file: Path) -> None:
    good = io.BytesIO()
    torch.save({"a": torch.ones(2, 3)}, good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))


def too_short_a_storage(file: Path) -> None:
    torch.save({"a": torch.ones(2, 3)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes().replace(b"\x06" + 7 * b"\0", b"\x05" + 7 * b"\0"))


def truncated(file: Path) -> None:
    torch.save({"a": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:-300])


def truncated_legacy(file: Path) -> None:
    torch.save({"a": torch.ones(1000)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-300])


def tar(file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (torchscript, "TorchScript archive, which is code"),
        (other_zip, "a zip archive, but not a torch checkpoint"),
        (big_endian, "big-endian"),
        (out_of_bounds, "cannot be read as a torch checkpoint"),
        (compressed, "is a compressed archive"),
        (too_short_a_storage, "cannot be read as a torch checkpoint"),
        (truncated, "cannot be read as a torch checkpoint"),
        (truncated_legacy, "cannot be read as a torch checkpoint"),
        (tar, "is a tar archive"),
        (lambda f: f.write_bytes(pickle.dumps([1, 2])), "cannot be read as a torch checkpoint"),
        (lambda f: f.write_bytes(pickle.dumps(1) * 2), "cannot be read as a torch checkpoint .*magic number"),
        (lambda f: torch.save({"a": 1}, f), "holds no tensors"),
        (lambda f: torch.save([torch.ones(1)], f), "holds no tensors"),
        (lambda f: torch.save({"state_dict": 3}, f), "holds no tensors"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, write: Any, message: str) -> None:
    file = tmp_path / "w.ckpt"
    write(file)
    with pytest.raises(ModelError, match=message) as caught:
        read_torch(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
