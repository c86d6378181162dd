from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import ConvNet3, TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import load_model, save
from pudnet_lib.files import config_from_dict, load_tensors, save_tensors, write_atomically

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}


def test_tensors_and_description_come_back(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "x.safetensors"
    save_tensors(path, TENSORS | {"view": TENSORS["a"].T}, {"answer": [1, {"two": None}]})
    tensors, description = load_tensors(path)
    assert description == {"answer": [1, {"two": None}], "format": 1}
    assert tensors["a"].equal(TENSORS["a"])
    assert tensors["b"].item() == 7
    assert tensors["view"].equal(TENSORS["a"].T)
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch, call: str):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {"version": "old"})
    old = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(PudNetError, match=r"Could not write .*No space left on device.*untouched"):
        save_tensors(path, {"a": torch.zeros(1000)}, {"version": "new"})
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_while_writing(tmp_path: Path, monkeypatch):
    def on_full_disk(self: Path, *args: object, **kwargs: object):
        self.touch()
        return open("/dev/full", "wb")

    monkeypatch.setattr(Path, "open", on_full_disk)
    with pytest.raises(PudNetError, match="No space left"):
        write_atomically(tmp_path / "x", b"content")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_the_folder_is_a_file(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(PudNetError, match="Could not write"):
        save_tensors(tmp_path / "file" / "x", TENSORS, {})


def test_new_files_are_as_readable_as_others(tmp_path: Path):
    save_tensors(tmp_path / "ours", TENSORS, {})
    (tmp_path / "theirs").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


class Explosive:
    """Unpickling this would make a file: the loader must never get that far."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickles_are_refused_unopened(tmp_path: Path):
    bomb = Explosive(tmp_path / "exploded")
    torch.save({"a": bomb}, tmp_path / "zip.pt")
    torch.save({"a": bomb}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(bomb))
    for name in ("zip.pt", "legacy.pt", "plain.pkl"):
        with pytest.raises(PudNetError, match=f"{name} is a pickle"):
            load_tensors(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_header_as_long_as_a_pickles_first_bytes_is_no_pickle(tmp_path: Path):
    # The file starts with its header's length: 0x280 = 640 is what a pickle of protocol 2 starts with.
    path = tmp_path / "x.safetensors"
    for padding in range(0, 700, 8):  # the header grows 8 bytes at a time
        save_tensors(path, TENSORS, {"padding": "x" * padding})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert load_tensors(path)[0]["b"].item() == 7


def test_damaged_missing_and_foreign_files_are_named(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {})
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:20], b"", b"no tensors at all", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(PudNetError, match=r"x\.safetensors is damaged or no safetensors file"):
            load_tensors(path)
    with pytest.raises(PudNetError, match="There is no checkpoint"):
        load_tensors(tmp_path / "missing")
    with pytest.raises(PudNetError, match="There is no checkpoint"):
        load_tensors(tmp_path)
    save_file(TENSORS, path)
    with pytest.raises(PudNetError, match="not written by this kit"):
        load_tensors(path)
    path.write_bytes(to_bytes(TENSORS, {"pudnet": '{"format": 99}'}))
    with pytest.raises(PudNetError, match="format 99"):
        load_tensors(path)


@pytest.mark.parametrize(
    "switches", [{}, {"refine": LastBlock(1), "pooling": "class", "residual": True}, {"recurrence": "none"}]
)
def test_models_come_back_with_their_config(pudnet, tmp_path: Path, switches: dict[str, object]):
    model = pudnet(**switches)
    model.notes = dict(seconds=1.5)
    save(model, tmp_path / "m")
    loaded, notes = load_model(tmp_path / "m")
    assert notes == {"seconds": 1.5}
    assert isinstance(loaded, PudNet)
    assert loaded.config == model.config
    assert not loaded.training
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.state_dict().items())


def test_a_shared_network_comes_back(tmp_path: Path):
    model = SharedNetwork(SharedConfig(TargetConfig(width=4), seed=2))
    save(model, tmp_path / "m")
    loaded, _ = load_model(tmp_path / "m")
    assert isinstance(loaded, SharedNetwork)
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.state_dict().items())


def test_another_architecture_is_named(pudnet, tmp_path: Path):
    own = PudNet(PudNetConfig(dim=8), target=ConvNet3(width=3))
    save(own, tmp_path / "own")
    assert load_model(tmp_path / "own", target=ConvNet3(width=3))[0](torch.zeros(2, 3, 8, 8)).keys()
    with pytest.raises(PudNetError, match="network of your own"):
        load_model(tmp_path / "own")
    with pytest.raises(PudNetError, match=r"another architecture: 3 tensors.*blocks\.0\.0\.weight.*\(3, 3, 3, 3\)"):
        load_model(tmp_path / "own", target=ConvNet3(width=4))
    with pytest.raises(PudNetError, match="another architecture"):
        load_model(tmp_path / "own", target=build_target(TargetConfig("resnet18", 2)))
    save(pudnet(), tmp_path / "whole")
    save_tensors(tmp_path / "less", {"scale": torch.tensor(1.0)}, load_tensors(tmp_path / "whole")[1])
    with pytest.raises(PudNetError, match="does not fit this PudNet: missing"):
        load_model(tmp_path / "less")
    save_tensors(tmp_path / "none", TENSORS, {})
    with pytest.raises(PudNetError, match="no model file"):
        load_model(tmp_path / "none")
    save_tensors(tmp_path / "kind", TENSORS, {"model": {"kind": "pudnett"}})
    with pytest.raises(PudNetError, match=r"model\.kind: Input should be 'pudnet' or 'shared' \(found 'pudnett'\)"):
        load_model(tmp_path / "kind")


def test_unknown_fields_are_named():
    with pytest.raises(PudNetError, match=r"Unknown field of PudNetConfig 'alfa'\. Did you mean 'alpha'"):
        config_from_dict(PudNetConfig, {"alfa": 1})
    with pytest.raises(PudNetError, match="Unknown field of TargetConfig"):
        config_from_dict(PudNetConfig, {"target": {"widht": 3}})
    assert config_from_dict(PudNetConfig, {"target": {"width": 3}}) == PudNetConfig(TargetConfig(width=3))
