"""`yolo-attn transfer`: pretrained weights into a model with attention, saved as a checkpoint to start from."""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from .. import checkpoint, config, placement, plugins, weights
from ..errors import CheckpointError, ConfigError, HostError, UsageError
from ..log import announce


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("source", metavar="WEIGHTS", help="a .pt of ultralytics or YOLOv5, a state dict, or .safetensors")
    add("cfg", metavar="YAML", help="the model that shall have them: a name (yolov5s_se.yaml) or file")
    add("-o", "--output", metavar="FILE", help="the checkpoint to write (.pt); without it, only the report")
    add("--nc", type=int, metavar="N", help="classes of the new model (default: the YAML's)")
    add(
        "--start",
        choices=("identity", "paper", "yaml"),
        default="identity",
        help="how new attention begins: identity, the model detects as before (default);\n"
        "paper, as its authors say; yaml, as the rows say",
    )
    add("--minimum", type=float, default=weights.THRESHOLD, metavar="F", help="least share that must match (0.5)")
    add("--force", action="store_true", help="below it too, and overwrite FILE")
    add("--json", metavar="FILE", help="write the report here")
    add("--yolov5", metavar="DIR", help="write a checkpoint for the classic YOLOv5 checkout in this folder")


def run(args: argparse.Namespace) -> int:
    """Build, transfer, report, save."""
    output = Path(args.output) if args.output else None
    if output is not None:
        if output.suffix != ".pt":
            raise UsageError(f"the output must be a .pt file, got {output}")
        if output.exists() and not args.force:
            raise UsageError(f"{output} exists. Choose another name, or add --force to overwrite it.")
        if not output.parent.is_dir():
            raise UsageError(f"the folder {output.parent} does not exist")
    source = checkpoint.read(args.source)
    path = config.require(args.cfg)
    d = config.read(path)
    plugins.load_register(d, path.parent, str(args.cfg))
    d["scale"] = config.split_scale(Path(args.cfg).stem)[1] or d.get("scale") or ""
    config.validate(d, str(args.cfg))
    if args.start != "yaml":
        d, without = placement.set_start(d, args.start)
        if without:
            announce("%s: no 'start' to set", ", ".join(sorted(set(without))))
    d["yaml_file"] = str(args.cfg)
    model = (_classic if args.yolov5 else _ultralytics)(d, args)
    report = weights.transfer(source, model, minimum=args.minimum, force=args.force)
    print(report.table())
    if args.json:
        Path(args.json).write_text(report.to_json() + "\n", encoding="utf-8")
    if report.new_attention:
        state = {
            "identity": "begins as the identity: the detector is the source's until it is trained",
            "paper": "begins as its paper says: train before use",
            "yaml": "begins as the YAML says",
        }
        print(f"attention {state[args.start]}")
    if output is None:
        return 0
    _save(model, output, classic=bool(args.yolov5))
    print(f"{output}: {'--weights' if args.yolov5 else 'model= or --weights'} {output}")
    return 0


def _ultralytics(d: dict[str, Any], args: argparse.Namespace) -> Any:
    os.environ.setdefault("YOLO_OFFLINE", "true")  # nothing here asks the network
    try:
        tasks = importlib.import_module("ultralytics.nn.tasks")
    except ImportError as exc:
        raise HostError(f"the ultralytics package cannot be imported: {exc}. 'pip install ultralytics'") from exc
    d = config.to_ultralytics(d, str(args.cfg))
    kinds = {
        "detect": "DetectionModel",
        "segment": "SegmentationModel",
        "pose": "PoseModel",
        "obb": "OBBModel",
        "classify": "ClassificationModel",
    }
    task = tasks.guess_model_task(d)
    if task not in kinds:
        raise ConfigError(f"{args.cfg}: its last row, {d['head'][-1][2]}, is no head that this command knows")
    model = getattr(tasks, kinds[task])(d, nc=args.nc, verbose=False)
    model.task = task
    return model


def _classic(d: dict[str, Any], args: argparse.Namespace) -> Any:
    if not (Path(args.yolov5) / "models" / "yolo.py").is_file():
        raise HostError(f"--yolov5 {args.yolov5}: no YOLOv5 checkout (it has no models/yolo.py)")
    sys.path.insert(0, str(Path(args.yolov5).resolve()))
    try:
        yolo = importlib.import_module("models.yolo")
    except ImportError as exc:
        raise HostError(f"--yolov5 {args.yolov5}: cannot be imported: {exc}") from exc
    return yolo.Model(d, nc=args.nc)


def _save(model: Any, output: Path, *, classic: bool) -> None:
    import torch

    content: dict[str, Any] = {
        "epoch": -1,
        "best_fitness": None,
        "model": model,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "date": datetime.datetime.now().isoformat(),
    }
    if classic:
        content["opt"] = None
    else:
        import ultralytics

        content["train_args"] = {"task": model.task}
        content["version"] = ultralytics.__version__
    draft = output.with_name(f".{output.name}.part")
    try:
        torch.save(content, draft)
        os.replace(draft, output)
    except OSError as exc:
        raise CheckpointError(f"{output} cannot be written: {exc.strerror or exc}") from exc
    finally:
        draft.unlink(missing_ok=True)
