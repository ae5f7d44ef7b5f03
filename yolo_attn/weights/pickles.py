"""Read files of ``torch.save`` without torch's reader: zip and pickle are parsed here, names become inert stand-ins.

`torch.load` decides by a file's content what it is: a pickle, a TorchScript archive, which it compiles and whose
code then runs, or a tar file. Here only the first is read, and nothing in it is called: every name but those that
rebuild tensors and containers becomes a class that remembers its attributes. What a file may cost is limited too.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, ClassVar

from ..errors import CheckpointError, shown

__all__ = ["Inert", "load", "refuse_script"]

ITEMS = 20_000_000  # values that a file may have copied from one container into another
NAMES = 20_000  # different names of classes and functions
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
_DTYPES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Untyped": "uint8",
}  # fmt: skip


class Refused(pickle.UnpicklingError):
    """The file asks for more than a checkpoint needs."""


class Inert:
    """Stands for an object of the file: keeps its attributes, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Accept what the file passes."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Forget it."""

    def __setstate__(self, state: Any) -> None:
        """Keep the attributes."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update((k, v) for k, v in part.items() if isinstance(k, str))

    def __setitem__(self, key: Any, value: Any) -> None:
        """A subclass of dict in the file fills itself; nobody reads it."""

    def append(self, value: Any) -> None:
        """Likewise a subclass of list."""

    def extend(self, values: Any) -> None:
        """Likewise."""

    def add(self, value: Any) -> None:
        """Likewise a subclass of set."""

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        """A function of the file, called: another inert object."""
        return Inert()


def load(path: Path, numbers: bool = True) -> Any:
    """Return what a file of `torch.save` holds, tensors as they are, all else inert.

    Args:
        path: The file.
        numbers: Read what is in the tensors; without, they are inert too, and a zip is read in a fraction of the time.

    Raises:
        CheckpointError: No pickle of torch's, cut short, or one that asks for too much.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(0)
            if head == b"PK\x03\x04":  # as torch decides, by the first bytes
                refuse_script(path)
                return _of_zip(file, numbers)
            if head[:2] != b"\x80\x02":
                raise CheckpointError(f"{path} is not a checkpoint, or is cut short ({path.stat().st_size} bytes).")
            return _of_legacy(io.BytesIO(file.read()), path.stat().st_size)
    except CheckpointError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # whatever a damaged pickle leads to, out of memory too
        told = (str(exc).strip().splitlines() or [""])[0]
        raise CheckpointError(f"{path} cannot be read: {type(exc).__name__}: {told[:200]}") from exc


def refuse_script(path: Path) -> None:
    """Refuse a TorchScript archive, which runs code when it is loaded; a file that is not a zip passes.

    Raises:
        CheckpointError: It is one, or hides one.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
        names: list[str] = []
        with contextlib.suppress(zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error):
            names = zipfile.ZipFile(file).namelist()
        # Zip libraries compare names without regard to case.
        script = any(n.rpartition("/")[2].lower() in ("constants.pkl", "bytecode.pkl") for n in names)
        script = script or any("code" in n.lower().split("/")[1:-1] for n in names)
        # A zip can be written so that two readers see different entries: the name of this one stands in neither
        script = script or _holds(file, b"constants.pkl")
    if script:
        raise CheckpointError(
            f"{path}: is a TorchScript archive, which runs code when it is loaded. A checkpoint (.pt) of a training is "
            f"needed."
        )


def _holds(file: Any, word: bytes) -> bool:
    """Whether a word stands in a file in letters of any case; a pattern without case takes twenty times as long."""
    file.seek(0)
    before = b""
    while data := file.read(1 << 20):
        if word in (before + data).lower():
            return True
        before = data[1 - len(word) :]
    return False


def _of_zip(file: Any, numbers: bool) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {}
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise Refused(f"{entry.filename[:80]} is compressed or encrypted, which torch never does")
            if entry.filename in entries:
                raise Refused(f"{entry.filename[:80]} is in it twice")
            entries[entry.filename] = entry
        whole = os.fstat(file.fileno()).st_size
        if sum(entry.file_size for entry in entries.values()) > whole:  # entries that lie in one another
            raise Refused("its entries are larger than the file")
        found = [n for n in entries if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(found) != 1:
            raise Refused("it holds no data.pkl")
        home = found[0][: -len("data.pkl")]
        order = archive.read(f"{home}byteorder").decode() if f"{home}byteorder" in entries else sys.byteorder
        if order != sys.byteorder:
            raise Refused(f"it was written on a machine of the other byte order, {order[:10]}")
        known: dict[str, Any] = {}

        def storage(kind: Any, key: Any, number: int) -> Any:
            if key not in known:
                if f"{home}data/{key}" not in entries:
                    raise Refused("a tensor's numbers are missing")
                if not numbers:
                    return None, kind
                known[key] = _tensor_of(bytearray(archive.read(f"{home}data/{key}")), "uint8")
            return known[key], kind

        reader = _Unpickler(io.BytesIO(archive.read(found[0])), storage)
        return reader.load()


def _of_legacy(file: Any, size: int) -> Any:
    import torch

    plain = [_Unpickler(file, None).load() for _ in range(3)]
    if plain[:2] != [_MAGIC, _PROTOCOL] or not isinstance(plain[2], dict):
        raise Refused("it is a pickle, but none of torch's")
    if not plain[2].get("little_endian", True):
        raise Refused("it was written on a machine of the other byte order")
    known: dict[str, Any] = {}
    left = size

    def storage(kind: Any, key: Any, number: int) -> Any:
        nonlocal left
        width = _width(kind)
        if key not in known:
            if not 0 <= number * width <= left:
                raise Refused("its tensors are larger than the file")
            left -= number * width
            known[key] = torch.zeros(number * width, dtype=torch.uint8), width
        return known[key][0], kind

    content = _Unpickler(file, storage).load()
    keys = _Unpickler(file, None).load()
    for key in keys if isinstance(keys, list) else ():
        (number,) = struct.unpack("<q", file.read(8))
        target, width = known[key]
        data = file.read(number * width if 0 <= number <= size else 0)
        if len(data) != target.numel():
            raise Refused("it is cut short")
        if data:
            target.copy_(_tensor_of(bytearray(data), "uint8"))
    return content


def _tensor_of(data: bytearray, dtype: str) -> Any:
    import torch

    return torch.frombuffer(data, dtype=getattr(torch, dtype)) if data else torch.zeros(0, dtype=torch.uint8)


def _width(kind: Any) -> int:
    import torch

    return torch.empty(0, dtype=getattr(torch, _DTYPES[kind])).element_size()


class _Stored:
    """The numbers of tensors, bytes, and their type if the file tells it here; None where they are not read."""

    def __init__(self, data: Any, kind: str) -> None:
        self.data, self.kind = data, kind

    def tensor(self, offset: Any, size: Any, stride: Any, dtype: Any = None) -> Any:
        import torch

        dtype = dtype if isinstance(dtype, torch.dtype) else getattr(torch, _DTYPES[self.kind])
        width = torch.empty(0, dtype=dtype).element_size()
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or len(size) > 32 or any(type(x) is not int or x < 0 for x in numbers):
            raise Refused("a tensor without a shape")
        count = math.prod(size)
        whole = self.data.numel() // width
        last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if count else offset
        if (count and last >= whole) or count > max(whole, 1_000_000):
            raise Refused("a tensor is larger than its numbers")
        if not count:
            return torch.zeros(size, dtype=dtype)
        flat = self.data[: whole * width]
        return torch.as_strided(flat.view(dtype) if width > 1 or dtype != flat.dtype else flat, size, stride, offset)


def _rebuilt(stored: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    import torch

    dtype = next((r for r in rest if isinstance(r, torch.dtype)), None)
    if type(size) is not tuple or type(stride) is not tuple:
        raise Refused("a tensor without a shape")
    if not isinstance(stored, _Stored) or stored.data is None:
        return Inert()
    return stored.tensor(offset, size, stride, dtype)


def _first(data: Any, *_: Any) -> Any:
    return data


def _plain(function: Any, kind: Any, args: Any, state: Any = None) -> Any:
    """A tensor subclass of the file, as the plain tensor that it holds."""
    return function(*args) if function in (_rebuilt, _first) else Inert()


# The one in Python: the one in C makes a table as large as a number in the file says.
_Python: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_Python):  # type: ignore[misc]
    def __init__(self, file: Any, storage: Callable[[Any, Any, int], Any] | None) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.storage = storage
        self.names: dict[tuple[str, str], Any] = {}
        self.items = 0

    def persistent_load(self, pid: Any) -> Any:
        if self.storage is None or not isinstance(pid, tuple) or len(pid) < 5:
            raise Refused("a reference to nothing")
        if pid[0] == "module":  # of the oldest files: the class and its source text
            return pid[1]
        kind = getattr(pid[1], "__name__", "").replace("Storage", "")
        if pid[0] != "storage" or kind not in _DTYPES or type(pid[4]) is not int:
            raise Refused(f"numbers of an unknown kind, {shown(kind, 40)}")
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("a view of a view, which torch before 0.4 wrote")
        return _Stored(*self.storage(kind, str(pid[2]), pid[4]))

    def find_class(self, module: str, name: str) -> Any:
        known = self.names.get((module, name))
        if known is None:
            if len(self.names) >= NAMES:
                raise Refused(f"it names more than {NAMES:,} classes")
            known = self.names[module, name] = self._find(module, name)
        return known

    def _find(self, module: str, name: str) -> Any:
        import torch

        if not f"{module}{name}".isprintable():
            raise Refused(f"it names a class with control characters, {shown(name, 40)}")
        if module in ("builtins", "__builtin__") and name in _CONTAINERS:
            return self._guarded(name)
        if module in ("builtins", "__builtin__") and name in _SCALARS:
            return _scalar(_SCALARS[name])
        if (module, name) == ("collections", "OrderedDict"):
            return self._guarded("OrderedDict")
        if module in ("torch._utils", "torch._tensor", "torch"):
            if name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
                return _rebuilt
            if name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
                return _first
            if name == "_rebuild_from_type_v2":
                return _plain
            if name == "Size":
                return self._guarded("tuple")
            if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
        return type(name.rpartition(".")[2] or "Inert", (Inert,), {"__module__": module})

    def _guarded(self, name: str) -> Any:
        """A container's constructor that takes containers of the file only, and no more than a limit of copies."""
        kind = _CONTAINERS[name]

        def make(*args: Any) -> Any:
            if len(args) > 1 or any(type(a) not in _COPIED for a in args):
                raise Refused(f"{name} of something else than values of the file")
            self.spend(sum(map(len, args)))
            if args and kind not in (list, tuple, bytearray):
                self.keys(args[0] if isinstance(args[0], dict) or kind in _SETS else [pair[0] for pair in args[0]])
            return kind(*args)

        return make

    def spend(self, number: int) -> None:
        self.items += number
        if self.items > ITEMS:
            raise Refused(f"it copies more than {ITEMS:,} values")

    def keys(self, found: Any) -> None:
        """Refuse what is endless to hash: tuples of tuples, and numbers made to have one hash."""
        for key in found:
            kind = type(key)
            if kind is tuple:
                self.spend(2_000)
                if len(key) > 8 or any(type(part) not in (str, int, bool, type(None)) for part in key):
                    raise Refused("a key is a tuple of more than a few plain values")
                self.keys(key)
            elif kind is int:
                if abs(key) >= sys.hash_info.modulus:
                    raise Refused("a key is a number of more than 18 digits")
            elif kind in (frozenset, complex):
                raise Refused(f"a key is a {kind.__name__}")

    dispatch: ClassVar[dict[int, Any]] = dict(_Python.dispatch)

    def _build(self) -> None:
        state = self.stack[-1]
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, (dict, list, tuple)):
                self.spend(len(part))
        if not isinstance(self.stack[-2], Inert):  # attributes of a container: torch's own `_metadata`
            self.stack.pop()
            return
        _Python.load_build(self)

    dispatch[pickle.BUILD[0]] = _build

    def _call(self) -> None:
        """Call with a tuple; anything else that can be gone through may have no end."""
        given = self.stack[-1] if type(self.stack[-1]) is tuple else None
        if given is None:
            raise Refused("a call without a tuple of arguments")
        _Python.load_reduce(self)

    dispatch[pickle.REDUCE[0]] = _call

    def _new(self) -> None:
        if type(self.stack[-1]) is not tuple:
            raise Refused("a call without a tuple of arguments")
        _Python.load_newobj(self)

    dispatch[pickle.NEWOBJ[0]] = _new

    def _new_by_name(self) -> None:
        if type(self.stack[-1]) is not dict or type(self.stack[-2]) is not tuple:
            raise Refused("a call without arguments by name")
        _Python.load_newobj_ex(self)

    dispatch[pickle.NEWOBJ_EX[0]] = _new_by_name

    def _filling(
        original: Any, kinds: tuple[type, ...], above: int, keys: Callable[[list[Any]], Any]
    ) -> Callable[[Any], None]:
        """An operation that puts values into what stands `above` them on the stack, or below the mark where it is 0."""

        def fill(self: Any) -> None:
            target = self.stack[-above] if above else self.metastack[-1][-1]
            if type(target) not in kinds and not isinstance(target, Inert):
                raise Refused(f"values for a {type(target).__name__}")
            self.keys(keys(self.stack))
            original(self)

        return fill

    _MAPS, _LISTS = (dict, OrderedDict), (list, bytearray)
    dispatch[pickle.SETITEM[0]] = _filling(_Python.load_setitem, _MAPS, 3, lambda s: s[-2:-1])
    dispatch[pickle.SETITEMS[0]] = _filling(_Python.load_setitems, _MAPS, 0, lambda s: s[::2])
    dispatch[pickle.APPEND[0]] = _filling(_Python.load_append, _LISTS, 2, lambda s: ())
    dispatch[pickle.APPENDS[0]] = _filling(_Python.load_appends, _LISTS, 0, lambda s: ())
    dispatch[pickle.ADDITEMS[0]] = _filling(_Python.load_additems, (set,), 0, lambda s: s)

    def _dict(self) -> None:
        self.keys(self.stack[::2])
        _Python.load_dict(self)

    dispatch[pickle.DICT[0]] = _dict

    def _frozenset(self) -> None:
        self.keys(self.stack)
        _Python.load_frozenset(self)

    dispatch[pickle.FROZENSET[0]] = _frozenset

    def _extension(self) -> None:
        raise Refused("it names a class by a number")

    dispatch[pickle.EXT1[0]] = dispatch[pickle.EXT2[0]] = dispatch[pickle.EXT4[0]] = _extension

    def _bytearray8(self) -> None:
        (number,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(min(number, sys.maxsize))))

    dispatch[b"\x96"[0]] = _bytearray8

    def _number(self) -> None:
        line = self.readline()[:-1]
        if len(line) > 400:
            raise Refused("a number of more than 400 digits")
        text = line.rstrip(b"L")
        self.append(text == b"01" if text in (b"00", b"01") else int(text, 0))  # how the oldest pickles write a bool

    dispatch[pickle.INT[0]] = dispatch[pickle.LONG[0]] = _number


_CONTAINERS: dict[str, Any] = {
    "set": set, "frozenset": frozenset, "dict": dict, "list": list, "tuple": tuple, "bytearray": bytearray,
    "OrderedDict": OrderedDict,
}  # fmt: skip
_SETS = (set, frozenset)
_COPIED = (set, frozenset, dict, list, tuple, bytes, bytearray, OrderedDict)
_SCALARS: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "complex": complex, "str": str, "bytes": bytes,
}  # fmt: skip


def _scalar(kind: Any) -> Callable[..., Any]:
    """A plain type's constructor that takes plain values of a plain size only."""

    def make(*args: Any) -> Any:
        small = all(a is None or type(a) in (bool, int, float) or (type(a) in (str, bytes) and len(a) < 400) for a in args)
        if not small or (kind is bytes and any(type(a) is not bytes for a in args[:1])):
            raise Refused(f"{kind.__name__} of something else than plain values")
        return kind(*args)

    return make
