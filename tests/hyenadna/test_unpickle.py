"""Hostile and damaged torch files."""

import builtins
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
from hyenadna.formats.unpickle import read_torch


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


def test_no_attribute_of_ours_can_be_set(tmp_path: Path) -> None:
    file = tmp_path / "w.ckpt"
    # GLOBAL torch._utils _rebuild_tensor_v2, then BUILD with a state: would change the stand-in for good
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w/data.pkl", program)
    with pytest.raises(ModelError, match="cannot be read as a torch checkpoint"):
        read_torch(file)


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
        (other_zip, "a zip archive, but no torch checkpoint"),
        (big_endian, "big-endian"),
        (out_of_bounds, "cannot be read as a torch checkpoint"),
        (truncated, "cannot be read as a torch checkpoint"),
        (truncated_legacy, "cannot be read as a torch checkpoint"),
        (tar, "cannot be read as a torch checkpoint"),
        (lambda f: f.write_bytes(pickle.dumps([1, 2])), "cannot be read as a torch checkpoint"),
        (lambda f: f.write_bytes(pickle.dumps(1) * 2), "a pickle, but no torch checkpoint"),
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
