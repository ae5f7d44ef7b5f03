"""Feed damaged files to the kit: each must be read, or give a clear error.

    python tools/fuzz.py --cases 1000 --seed 0 --kind yaml,edit,pt,bundle,onnx

Each case is determined by its seed, so a printed seed reproduces the file. The tool counts: read (or built), clear errors
(of the kit, one line), other exceptions, hangs (longer than --timeout), out of memory. The exit code is 1 if there are
any of the last three, or a clear error of more than one line or 4,000 characters.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

GOOD = ("read", "clear error")
# Values that mistakes and attacks put into a file.
VALUES = [
    "-1", "0", "1", "99999999999", "9" * 5000, "1e400", ".nan", "true", "null", "''", "[]", "{}", "[-1]", "[[[]]]",
    "2020-13-45", "!!bool maybe", "!!int ''", "!!binary aGk=", "!!python/name:os.system", '"\\U00110000"', '"\\ud800"',
    "&a [*a]", "nn.SiLU()", "__import__('os')", "Conv", "SEAttention", "nc", "*x", "[" * 60, "?", "\t", "\x00", "é",
]  # fmt: skip


class Hang(BaseException):
    """A case took too long."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` in the main thread after some seconds; without effect where SIGALRM does not exist."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated_text(text: str, rng: random.Random) -> str:
    """YAML text with some of its values, lines or characters changed."""
    for _ in range(rng.randint(1, 4)):
        lines = text.split("\n")
        i = rng.randrange(len(lines))
        way = rng.randrange(6)
        if way == 0:
            parts = lines[i].split(",")
            parts[rng.randrange(len(parts))] = rng.choice(VALUES)
            lines[i] = ",".join(parts)
        elif way == 1:
            head, colon, _ = lines[i].partition(":")
            lines[i] = f"{head}{colon or ':'} {rng.choice(VALUES)}"
        elif way == 2:
            del lines[i]
        elif way == 3:
            lines.insert(i, lines[rng.randrange(len(lines))])
        elif way == 4:
            lines[i] = "x: &x [1, 2, 3]\n" + lines[i].replace("nc", "*x", 1)
        else:
            k = rng.randrange(len(lines[i]) + 1)
            lines[i] = lines[i][:k] + rng.choice("[]{}:,-&*!#'\"\\ \t0é") + lines[i][k + 1 :]
        text = "\n".join(lines)
    return text


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes with some changed, cut or repeated."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 12)):
        i = rng.randrange(len(out))
        way = rng.randrange(5)
        if way < 3:
            out[i] = rng.choice([rng.randrange(256), 0, 255, out[i] ^ (1 << rng.randrange(8))])
        elif way == 3:
            del out[i : i + rng.randint(1, 200)]
        else:
            out[i:i] = out[i : i + rng.randint(1, 60)]
        out = out or bytearray(b"\0")
    return bytes(out)


def _configs(rng: random.Random) -> tuple[str, str]:
    from yolo_attn.model_yaml import find

    file = find.configs_folder() / rng.choice([n for n in find.list_configs() if n.startswith("yolov5")])
    return file.name, file.read_text(encoding="utf-8")


def yaml_case(rng: random.Random, folder: Path, build: bool) -> None:
    """A model YAML through reading and checking, and with `build` through the host."""
    from yolo_attn.model_yaml import load

    name, text = _configs(rng)
    path = folder / name
    path.write_bytes(mutated_text(text, rng).encode("utf-8", "surrogatepass"))
    load.load_ultralytics(str(path), path)
    if build:
        from yolo_attn.detectors.opening import open_source

        open_source(path)


def edit_case(rng: random.Random, folder: Path, build: bool) -> None:
    """Insert attention into a model YAML, and remove it."""
    import yolo_attn

    text = mutated_text(_configs(rng)[1], rng)
    after = yolo_attn.insert(text, rng.choice(["SE", "ECA", "CBAM"]), after=rng.choice(["C3", "Conv", "head", "5"]))
    yolo_attn.remove(after)
    yolo_attn.set_start(after, rng.choice(["identity", "paper"]))


def pt_case(rng: random.Random, folder: Path, build: bool) -> None:
    """Read a damaged checkpoint with the reader that executes nothing."""
    import torch

    from yolo_attn.weights import checkpoint

    buffer = io.BytesIO()
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    torch.save({"model": layer.state_dict()}, buffer, _use_new_zipfile_serialization=rng.random() < 0.7)
    data = buffer.getvalue()
    if data[:2] == b"PK" and rng.random() < 0.7:  # damage the pickle, in an intact archive
        target = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
            for entry in old.namelist():
                inner = old.read(entry)
                new.writestr(entry, mutated_bytes(inner, rng) if entry.endswith("data.pkl") else inner)
        data = target.getvalue()
    else:
        data = mutated_bytes(data, rng)
    (folder / "a.pt").write_bytes(data)
    checkpoint.read(folder / "a.pt")


# A model that is small enough to be built many times.
SMALL: dict[str, Any] = {
    "nc": 1, "scales": {"n": [1.0, 1.0, 1024]},
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "SEAttention", []], [-1, 1, "C2f", [8, True]]],
    "head": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, 1], 1, "Detect", ["nc"]]],
}  # fmt: skip
ODD = [
    None, True, -1, 0, 3, 10**6, 10**30, 1e400, float("nan"), "", "x", "nc", "nn.SiLU()", "nn.Module", "torch.load", "C3_SE",
    "Conv", "DetectionModel", "AutoBackend", "TorchVision", "__import__('os')", "exit", b"aGk=", [], {}, [[]], {"module": "SE"},
    {"start": "identity"}, [8, 3, 2], ["a", {"b": None}], {None: 1}, "\x1b[2J\n", "a" * 2000, "yolo_attn.SE", "9" * 5000,
]  # fmt: skip


def mutated_value(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """A model dictionary with one of its values, at any depth, replaced, doubled or dropped."""
    if depth > 6 or not isinstance(value, (dict, list)) or not value or rng.random() < 0.12:
        return copy.deepcopy(rng.choice(ODD))
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    way = rng.random()
    if way < 0.85:
        value[key] = mutated_value(value[key], rng, depth + 1)
    elif way < 0.95:
        del value[key]
    elif isinstance(value, list):
        value.insert(key, copy.deepcopy(value[key]))
    else:
        value[rng.choice(["register", "activation", "scale", "start", "anchors", "kpt_shape", "x"])] = rng.choice(ODD)
    return value


def bundle_case(rng: random.Random, folder: Path, build: bool) -> None:
    """A bundle whose archive, manifest or rows are damaged, with matching hashes, so that its rows are read."""
    import hashlib

    import torch
    import yaml
    from safetensors.torch import save

    from yolo_attn.detectors import bundle

    way = rng.choice(["archive", "manifest", "rows", "rows", "text"])
    d = copy.deepcopy(SMALL)
    for _ in range(rng.randint(1, 3) if way == "rows" else 0):
        d = mutated_value(d, rng)
        d = d if isinstance(d, dict) else copy.deepcopy(SMALL)
    text = yaml.safe_dump(d, sort_keys=False)
    data = {
        bundle.MODEL: (mutated_text(text, rng) if way == "text" else text).encode("utf-8", "surrogatepass"),
        bundle.WEIGHTS: save({"model.0.conv.weight": torch.zeros(8, 3, 3, 3)}),
    }
    manifest: dict[str, Any] = {
        "format": 1, "task": "detect", "names": {"0": "a"}, "imgsz": [64, 64],
        "sha256": {k: hashlib.sha256(v).hexdigest() for k, v in data.items()},
    }  # fmt: skip
    if way == "manifest":
        odd = [None, [], {}, "x", float("inf"), -1, [[]], {"a": 1}, True, 10**30, {"0": "\x1b[2J"}, [2.5, 64], {"0": [1]}]
        manifest[rng.choice(list(manifest))] = rng.choice(odd)
    with contextlib.suppress(TypeError, AttributeError):
        manifest["sha256"][bundle.MANIFEST] = bundle._seal(json.loads(json.dumps(manifest)))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, content in {bundle.MANIFEST: json.dumps(manifest).encode(), **data}.items():
            file.writestr(name, content)
    (folder / "a.bundle").write_bytes(mutated_bytes(target.getvalue(), rng) if way == "archive" else target.getvalue())
    if build:
        bundle.load(folder / "a.bundle")
    else:
        bundle.content_of(folder / "a.bundle")


def onnx_case(rng: random.Random, folder: Path, build: bool) -> None:
    """Read an ONNX file with foreign metadata as `detect` does."""
    import onnx
    from onnx import TensorProto, helper

    from yolo_attn.runtime.session import Detector

    inside = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    out = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 24, 8])
    shape = helper.make_tensor("s", TensorProto.INT64, [3], [1, 24, 8])
    graph = helper.make_graph([helper.make_node("Reshape", ["images", "s"], ["output0"])], "g", [inside], [out], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    odd = ["abc", "nan", "inf", "-inf", "[8, 16, 32]", "0", "-1", "1e6", "", "{}", "{'a': 'b'}", "{0.5: 'a'}", "[1]", "[" * 999,
           "[1e6, 1e6]", "['x', 'y']", "9" * 5000, "None", "{None: 1}", "(64, 64)", "[64, 64]", "32", "{0: 'a'}"]  # fmt: skip
    for key in rng.sample(["stride", "names", "imgsz", "task", "args", "end2end"], rng.randint(1, 4)):
        model.metadata_props.add(key=key, value=rng.choice(odd))
    onnx.save(model, str(folder / "a.onnx"))
    _ = Detector(folder / "a.onnx").default_size


KINDS: dict[str, Callable[[random.Random, Path, bool], None]] = {
    "yaml": yaml_case, "edit": edit_case, "pt": pt_case, "bundle": bundle_case, "onnx": onnx_case,
}  # fmt: skip


def outcome(kind: str, seed: int, folder: Path, timeout: float, build: bool) -> tuple[str, str]:
    """Run one case; return the kind of its result, and the message."""
    from yolo_attn.errors import YoloAttnError

    rng = random.Random(f"{kind} {seed}")
    try:
        with at_most(timeout):
            KINDS[kind](rng, folder, build)
    except YoloAttnError as exc:
        text = str(exc)
        return ("clear error" if len(text) < 4_000 and "\n" not in text.strip() else "long error"), text[:300]
    except Hang:
        return "hang", f"longer than {timeout:g} s"
    except MemoryError as exc:
        return "memory", str(exc)
    except Exception as exc:
        return "other exception", f"{type(exc).__name__}: {exc}"[:300]
    return "read", ""


def _import_all() -> None:
    """Import what the cases need before any of them is timed: a time limit amid an import would leave it half done."""
    import onnxruntime  # noqa: F401 # imported for the effect
    import ultralytics.nn.tasks  # noqa: F401 # imported for the effect

    from yolo_attn.registry import sources

    sources.load_all()


def main(argv: list[str] | None = None) -> int:
    """Run the cases and print the counts."""
    parser = argparse.ArgumentParser(description="feed the kit with damaged files")
    parser.add_argument("--cases", type=int, default=100, metavar="N", help="number of cases per kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the first case (default %(default)s)")
    parser.add_argument("--kind", default=",".join(KINDS), help="kinds, separated by commas (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=20, metavar="SECONDS", help="time limit per case (default %(default)s)")
    parser.add_argument("--build", action="store_true", help="also build what was read with the host")
    options = parser.parse_args(argv)
    kinds = options.kind.split(",")
    if unknown := [k for k in kinds if k not in KINDS]:
        parser.error(f"--kind {unknown[0]}: choose from {', '.join(KINDS)}")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    _import_all()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="yolo_attn_fuzz") as folder:
        for kind in kinds:
            counts: Counter[str] = Counter()
            for seed in range(options.seed, options.seed + options.cases):
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    found, told = outcome(kind, seed, Path(folder), options.timeout, options.build)
                counts[found] += 1
                if found not in GOOD:
                    bad += 1
                    print(f"{kind} --seed {seed} --cases 1: {found}: {told!r}")
            print(f"{kind:<8}" + ", ".join(f"{n} {what}" for what, n in counts.most_common()), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
