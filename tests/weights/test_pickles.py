"""Pickles written by hand, each without an end of some kind: one clear error, soon, and nothing called."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from yolo_attn.errors import CheckpointError
from yolo_attn.weights import checkpoint, pickles


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tensor(size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,), given: bytes = b"") -> bytes:
    sizes = [b"(" + b"".join(map(number, v)) + b"t" for v in (size, stride)]
    stored = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + number(4) + b"tQ"
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + stored + number(0) + (given or sizes[0]) + sizes[1] + b"\x89NtR"


def nested(outer: bytes, levels: int = 60) -> bytes:
    """A value that holds the one before twice, sixty times: short to write, endless to go through."""
    steps = [outer.replace(b"?", b"h" + bytes([k]) + b"h" + bytes([k])) + b"q" + bytes([k + 1]) + b"0" for k in range(levels)]
    return b"N\x85q\x000" + b"".join(steps) + b"h" + bytes([levels])


RANGE = named("builtins", "range") + b"(" + number(10**10) + b"tR"
TUPLES, FROZEN = nested(b"?\x86"), nested(named("builtins", "frozenset") + b"(](?etR")
ENDLESS = {
    "a tuple of tuples as a key": (b"}" + TUPLES + b"Ns", "a key is a tuple"),
    "several": (b"}(" + TUPLES + b"Nu", "a key is a tuple"),
    "in a dict of the oldest kind": (b"(" + TUPLES + b"Nd", "a key is a tuple"),
    "in a set": (named("builtins", "set") + b"(](" + TUPLES + b"etR", "a key is a tuple"),
    "in a set, added": (b"\x8f(" + TUPLES + b"\x90", "a key is a tuple"),
    "in a frozenset": (b"(" + TUPLES + b"\x91", "a key is a tuple"),
    "in pairs": (named("builtins", "dict") + b"(](" + TUPLES + b"N\x86etR", "a key is a tuple"),
    "frozensets in frozensets": (FROZEN, "a key is a"),
    "numbers of one hash": (b"}(" + b"".join(number(((1 << 61) - 1) * k) + b"N" for k in range(1, 9)) + b"u", "18 digits"),
    "numbers of one hash in a set": (b"\x8f(" + number((1 << 61) - 1) + b"\x90", "18 digits"),
    "a range as a shape": (tensor(given=RANGE), "without a shape"),
    "a range as arguments": (named("x", "F") + RANGE + b"R", "tuple of arguments"),
    "a range for a new object": (named("x", "F") + RANGE + b"\x81", "tuple of arguments"),
    "sums of tensors": (b"(" + tensor() + b"q\1(" + tensor() + b"\x90t", "values for a Tensor"),
    "an assignment in a tensor": (tensor() + b"N" + tensor() + b"s", "values for a Tensor"),
    "a class by a number": (b"\x82\x01", "by a number"),
    "data beside the pickle": (b"\x97", "out-of-band"),
    "a name without end": (b"}" + text("model." * 30_000 + "x") + tensor() + b"s", "name of a module or tensor"),
    "a function by a path": (text("os") + text("path.os.getcwd") + b"\x93)R", "neither a model"),
    "a class filled": (named("torch.nn", "Module") + b"}" + text("forward") + b"Nsb", "neither a model"),
    "its methods replaced": (named("x", "Y") + b")\x81}" + text("__setstate__") + named("builtins", "list") + b"sb]b", "neither a model"),
}  # fmt: skip


def archive(path: Path, body: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x04" + body + b".")
        file.writestr("a/data/0", bytes(400_000))
    return path


@pytest.mark.parametrize("name", ENDLESS)
def test_a_pickle_without_end(name: str, tmp_path: Path) -> None:
    body, words = ENDLESS[name]
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint.read(archive(tmp_path / "a.pt", body))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_names_of_classes_that_are_no_names() -> None:
    deep: Any = "a"
    for _ in range(60):
        deep = [deep, deep]
    found = checkpoint._names({0: "a" * 5_000, "1": "b", 2: deep, "9" * 5_000: "x", "²": "x", -1: "x", deep_key(): "x"})
    assert found.keys() == {0, 1, 2} and found[1] == "b" and all(len(n) <= 1_000 for n in found.values())


def deep_key() -> tuple[int, ...]:
    return (1, 2)


def test_storages_larger_than_the_file(tmp_path: Path) -> None:
    """In the format before torch 1.6, which tells sizes apart from the numbers."""
    import io
    import pickle

    head = b"".join(pickle.dumps(v, 2) for v in (pickles._MAGIC, pickles._PROTOCOL, {"little_endian": True}))
    one = b"(" + text("storage") + named("torch", "DoubleStorage") + b"%s" + text("cpu") + number(900) + b"NtQ"
    body = b"\x80\x02(" + b"".join(one.replace(b"%s", text(str(k))) for k in range(50)) + b"l."
    (tmp_path / "a.pt").write_bytes(head + body + pickle.dumps([str(k) for k in range(50)], 2))
    with pytest.raises(CheckpointError, match="larger than the file"):
        checkpoint.read(tmp_path / "a.pt")
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(900.0), "v": torch.arange(90)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "b.pt").write_bytes(buffer.getvalue())
    assert torch.equal(checkpoint.read(tmp_path / "b.pt").tensors["w"], torch.arange(900.0))


def test_entries_that_lie_in_one_another(tmp_path: Path) -> None:
    """A zip whose index says more than the file holds."""
    path = archive(tmp_path / "a.pt", b"N")
    with zipfile.ZipFile(path, "a") as file:
        first = file.getinfo("a/data/0")
        for k in range(1, 5):
            again = zipfile.ZipInfo(f"a/data/{k}")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(again, name, getattr(first, name))
            file.filelist.append(again)
            file.NameToInfo[again.filename] = again
        file._didModify = True
    with pytest.raises(CheckpointError, match="larger than the file"):
        checkpoint.read(path)


def test_torchscript_in_other_letters(tmp_path: Path) -> None:
    """Readers of zip files that ask for a name without regard to case find it."""
    path = archive(tmp_path / "a.pt", b"N")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("a/CONSTANTS.PKL", b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        checkpoint.read(path)
    whole = path.read_bytes().replace(b"a/CONSTANTS.PKL", b"a/CoNSTANTS.PKL").replace(b"PK\x05\x06", b"PK\x05\x07")
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="TorchScript"):
        pickles.refuse_script(path)


@pytest.mark.parametrize("at", [0, (1 << 20) - 5, (1 << 20) + 3])
def test_a_word_is_found_wherever_blocks_end(at: int) -> None:
    data = bytes(at) + b"Constants.PKL" + bytes(9)
    assert pickles._holds(io.BytesIO(data), b"constants.pkl")
    assert not pickles._holds(io.BytesIO(data.replace(b"P", b"q")), b"constants.pkl")


def test_what_stands_beside_the_tensors_is_read_without_them(tmp_path: Path) -> None:
    """As the size that a checkpoint was trained with; numbers that are cut short are not looked at."""
    file = tmp_path / "a.pt"
    torch.save({"opt": {"imgsz": 320}, "model": torch.nn.Linear(2, 3), "ema": torch.ones(5)}, file)
    whole, told = pickles.load(file), pickles.load(file, numbers=False)
    assert told["opt"] == whole["opt"] == {"imgsz": 320} and torch.equal(whole["ema"], torch.ones(5))
    assert isinstance(told["ema"], pickles.Inert) and isinstance(told["model"]._parameters["weight"], pickles.Inert)


def test_safetensors_of_others(tmp_path: Path) -> None:
    """A header that is too large, no tensors, names that nest without end or move the cursor."""
    from safetensors.torch import save_file

    (tmp_path / "a.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    (tmp_path / "b.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    save_file({"model.0\x1b[2J": torch.zeros(1)}, tmp_path / "c.safetensors")
    for name, words in (("a", "cannot be read"), ("b", "no tensors"), ("c", "name of a module")):
        with pytest.raises(CheckpointError, match=words):
            checkpoint.read(tmp_path / f"{name}.safetensors")
    for names, wanted in (("[" * 100_000, {}), ('{"0": "\\u001b[2J"}', {0: r"\x1b[2J"}), ("5", {})):
        save_file({"model.0.weight": torch.zeros(1)}, tmp_path / "d.safetensors", metadata={"names": names})
        assert checkpoint.read(tmp_path / "d.safetensors").names == wanted


ODD: list[Any] = [
    {"model": None, "ema": None}, {"model": 5}, {"epoch": 1, "optimizer": {}, "train_args": {"epochs": 10**30}, "model": {}},
    {"model": {"a": torch.zeros(1)}}, {"train_args": 5, "epoch": "x"}, {"opt": [1]}, [], None,
]  # fmt: skip


@pytest.mark.parametrize("content", ODD, ids=range(len(ODD)))
def test_what_is_no_run_is_not_resumed(content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from yolo_attn import cli

    torch.save(content, tmp_path / "a.pt")
    assert cli.main(["train", "--resume", str(tmp_path / "a.pt")]) == 1
    told = capsys.readouterr().err
    assert "is not a checkpoint of a run that can be resumed" in told or "cannot be loaded" in told
