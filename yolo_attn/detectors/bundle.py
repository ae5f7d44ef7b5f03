"""A detector as one file without a pickle: weights, model YAML, origin of the modules, versions, hashes.

A `.bundle` is an uncompressed zip of three files: ``weights.safetensors``, ``model.yaml`` and ``manifest.json``, which
holds the SHA-256 of the other two and of itself. The hashes show that a file was changed, not who created it. Loading
one unpacks nothing to disk and runs no code from it: its rows may only name layers that
:mod:`yolo_attn.registry.allowed` lists, with plain values as arguments; nothing is imported or downloaded by a name
from the file; and the host builds in its restricted mode.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zipfile
from pathlib import Path
from typing import Any

import yaml

from .._version import __version__
from ..errors import CheckpointError, UsageError, YoloAttnError, first_line, one_line, shown
from ..files import replacing, write_text
from ..hook import seams
from ..model_yaml.reader import mapping_of
from ..system.drafts import scratch
from .source import Source, attention_used, quiet_host, widen_classes

__all__ = ["content_of", "load", "plain", "read_manifest", "save"]

FORMAT = 1
TEXT = 16_000_000  # bytes of a manifest or a model YAML
WEIGHTS, MODEL, MANIFEST = "weights.safetensors", "model.yaml", "manifest.json"

# The host's wrapper class can only be built from a file; its network is then replaced.
_PLACEHOLDER = {
    "nc": 1,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]],
    "head": [[[1], 1, "Detect", ["nc"]]],
}


def save(source: Source, target: Path) -> None:
    """Write a detector as a bundle.

    Weights that fp16 represents exactly, such as those of the hosts' checkpoints, are stored in fp16 and loaded as fp32.

    Raises:
        UsageError: The detector is not of the ultralytics host.
    """
    import torch
    import ultralytics
    from safetensors.torch import save as serialize

    if source.host != "ultralytics":
        raise UsageError(f"{source.path}: bundles are for detectors of ultralytics, this one is of {source.host}")
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in source.model.state_dict().items()}
    small = {k: v.half() for k, v in tensors.items() if v.dtype == torch.float32}
    exact = all(torch.equal(v.float(), tensors[k]) for k, v in small.items())
    weights = serialize({**tensors, **small} if exact else tensors)
    model = yaml.safe_dump(plain(_expanded(source.model.yaml)), sort_keys=False).encode()
    manifest = {
        "format": FORMAT,
        "task": source.task,
        "names": source.names,
        "stride": source.stride,
        "imgsz": list(source.imgsz),
        "weights": "fp16, exact" if exact else "fp32",
        "attention": attention_used(source.model),
        "register": _register_map(source.model),
        "versions": {
            "yolo_attn": __version__,
            "torch": torch.__version__,
            "ultralytics": ultralytics.__version__,
            "python": platform.python_version(),
        },
        "sha256": {WEIGHTS: hashlib.sha256(weights).hexdigest(), MODEL: hashlib.sha256(model).hexdigest()},
    }
    manifest = json.loads(json.dumps(manifest))  # as it will be read: keys are strings
    manifest["sha256"][MANIFEST] = _seal(manifest)
    with replacing(target) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as file:
        file.writestr(MANIFEST, json.dumps(manifest, indent=1))
        file.writestr(MODEL, model)
        file.writestr(WEIGHTS, weights)


def read_manifest(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a bundle's manifest and its other files, after checking every hash.

    Raises:
        CheckpointError: The file is missing, not a bundle, damaged or changed.
    """
    try:
        with zipfile.ZipFile(path) as file:
            inside = file.namelist()
            if sorted(inside) != sorted((WEIGHTS, MODEL, MANIFEST)):
                raise CheckpointError(
                    f"{path}: is not a bundle: it should contain {WEIGHTS}, {MODEL} and {MANIFEST}, it contains "
                    f"{', '.join(name[:80] for name in inside[:5]) or 'nothing'}."
                )
            for entry in file.infolist():  # uncompressed entries cannot grow beyond the file's size
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    raise CheckpointError(f"{path}: is not a bundle: {entry.filename} is compressed or encrypted.")
                if entry.filename != WEIGHTS and entry.file_size > TEXT:
                    raise CheckpointError(f"{path}: is not a bundle: {entry.filename} is larger than {TEXT:,} bytes.")
            content = {name: file.read(name) for name in inside}
        manifest = json.loads(content.pop(MANIFEST))
        hashes = manifest["sha256"]
        version = manifest["format"]
        found = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        found[MANIFEST] = _seal(manifest)
        said = {name: str(hashes.get(name)) for name in found}
    except FileNotFoundError as exc:
        raise CheckpointError(f"bundle not found: {path} (looked in {Path.cwd()})") from exc
    except CheckpointError:
        raise
    except Exception as exc:  # zipfile and json raise many kinds of errors
        told = first_line(exc)[:200] or type(exc).__name__
        raise CheckpointError(f"{path}: is not a bundle, or is damaged: {told}") from exc
    if version != FORMAT:
        raise CheckpointError(
            f"{path}: is a bundle of format {shown(version)}, yolo_attn {__version__} reads format {FORMAT}. Update the package."
        )
    for name, value in found.items():
        if value != said[name]:
            raise CheckpointError(
                f"{path}: {name} was changed: its SHA-256 is {value[:16]}..., the manifest says {said[name][:16]}... "
                f"Get the file again from its source."
            )
    return manifest, content


def _seal(manifest: dict[str, Any]) -> str:
    """Return the hash of a manifest without its own hash, keys sorted."""
    hashes = {k: v for k, v in manifest["sha256"].items() if k != MANIFEST}
    text = json.dumps({**manifest, "sha256": hashes}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def content_of(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what a bundle holds, checked to the last value of its rows, with nothing built.

    Returns:
        The model dictionary, the tensors, and of the manifest ``names``, ``imgsz`` and ``task``.

    Raises:
        CheckpointError: No bundle, damaged or changed.
        YoloAttnError: A row or value that is none of what a model needs, or names a module that is not here.
    """
    manifest, content = read_manifest(path)
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialize
    from ultralytics.nn import tasks

    from ..model_yaml import check
    from ..registry import allowed
    from ..registry.plain import check_size

    try:
        text = content[MODEL].decode()
        state = deserialize(content[WEIGHTS])
        about = {
            "names": {int(k): one_line(str(v)) for k, v in manifest["names"].items()},
            "imgsz": [int(v) for v in manifest["imgsz"]],
            "task": manifest.get("task", "detect"),
        }
        if len(about["imgsz"]) != 2 or not all(0 < v <= 65_536 for v in about["imgsz"]):
            raise ValueError(f"imgsz {shown(about['imgsz'])}")
        if about["task"] not in ("detect", "segment", "pose", "obb", "classify", "semantic", "depth"):
            raise ValueError(f"task {shown(about['task'])}")
    except (SafetensorError, RecursionError, AttributeError, ArithmeticError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{path}: is damaged: {first_line(exc)[:200] or type(exc).__name__}") from exc
    d = mapping_of(text, f"{path}: its {MODEL}", CheckpointError, "It should hold the model.")
    d["yaml_file"] = str(path)
    d = allowed.checked(d, str(path), tasks)
    check.validate({**d, "scale": ""}, str(path))
    check_size(d, str(path))
    return d, state, about


def load(path: str | os.PathLike[str]) -> Any:
    """Rebuild a detector from a bundle, without a pickle.

    Args:
        path: The file that ``yolo-attn export best.pt --format bundle`` wrote.

    Returns:
        An ``ultralytics.YOLO``, ready to predict, validate, export or train on.

    Raises:
        CheckpointError: The file is not a bundle, is damaged or changed, or its weights do not match its YAML.
        YoloAttnError: A row names an unknown module; load plug-ins first.
    """
    d, state, about = content_of(path)
    from ultralytics import YOLO
    from ultralytics.nn import tasks

    from ..hook.memory_need import parameters
    from ..registry import allowed

    try:
        with quiet_host(), scratch() as folder:
            placeholder = folder / "placeholder.yaml"
            write_text(placeholder, yaml.safe_dump(_PLACEHOLDER), durable=False)
            handle: Any = YOLO(str(placeholder), task=about["task"])
            with seams.reading(str(path), layers_only=True), allowed.restricted(tasks):
                # Counted without memory: what the file does not hold need not be built
                count, held = parameters(d, tasks) or 0, sum(v.numel() for v in state.values())
                if count > held:
                    raise CheckpointError(
                        f"{path}: its weights do not match its YAML: {held:,} numbers for {count:,} parameters."
                    )
                model = widen_classes(handle._smart_load("model")(d, verbose=False), state)
    except YoloAttnError:
        raise
    except Exception as exc:  # the host's parser raises whatever a wrong row leads to
        raise CheckpointError(
            f"{path}: its {MODEL} cannot be built: {type(exc).__name__}: {first_line(exc)[:300]}"
        ) from exc
    wanted = model.state_dict()
    bad = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape] + [
        k for k in state if k not in wanted
    ]
    if bad:
        raise CheckpointError(f"{path}: {len(bad)} of its weights do not match its YAML, the first is {bad[0]}.")
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    model.names = about["names"]
    model.task = handle.task
    model.args = {**handle.model.args, "model": str(path), "imgsz": about["imgsz"]}
    model.pt_path = None
    handle.model = model.eval()
    handle.model_name = str(path)
    handle.overrides.update(model=str(path), imgsz=about["imgsz"])
    return handle


def _expanded(d: dict[str, Any]) -> dict[str, Any]:
    """Return a model dictionary that does not depend on a file's name: with only the scale that it was built with."""
    d = {k: v for k, v in d.items() if k not in ("yaml_file",)}
    scales, scale = d.get("scales"), d.pop("scale", "")
    if scales:
        d["scales"] = {scale or "n": scales[scale] if scale in scales else next(iter(scales.values()))}
    return d


def _register_map(model: Any) -> dict[str, str]:
    """Return the origin, `module:Class`, of each attention module in the rows."""
    from ..registry import plugins, registry

    out = {}
    rows = (model.yaml.get("backbone") or []) + (model.yaml.get("head") or [])
    for name in dict.fromkeys(str(row[2]) for row in rows):
        entry = registry.find(name)
        cls = entry.cls if entry else plugins.from_yaml(name, model.yaml, "bundle")
        if cls is not None:
            out[name] = f"{cls.__module__}:{cls.__qualname__}"
    return out


def plain(value: Any) -> Any:
    """Convert a model dictionary, into which hosts put other types, to plain values that YAML can represent."""
    if isinstance(value, dict):
        return {str(k) if not isinstance(k, (str, int)) else k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
