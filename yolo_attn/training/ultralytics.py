"""The main job: train, validate, picture, export, prove, and say what comes next."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from .. import words
from ..detectors.host_paths import keep_apostrophes
from ..errors import CheckpointError, ConfigError, DataError, UsageError, YoloAttnError, did_you_mean, first_line
from ..files import REFUSED, cache_folder, expand, scratch
from ..log import announce
from ..model_yaml import check, find, load
from ..system.shell import exit_code
from ..weights.published import fetch
from . import dataset, runs, shapes
from .closing import command, found_nothing, next_steps, published
from .options import host_arguments

__all__ = ["main"]

PICTURE = "truth_and_prediction.jpg"

# Arguments of the host that the kit's own options stand for.
OWN = {
    "model": "--cfg names the model, --weights what it starts from",
    "cfg": "--cfg names the model, --hyp a file of hyperparameters",
    "resume": "--resume goes on with a run",
    "task": "the task is detection",
    "mode": "the command trains; 'yolo-attn yolo' takes any mode",
}


def main(options: argparse.Namespace) -> int:
    """Train as the options say and return the exit code: 0, or 130 after Ctrl-C.

    Raises:
        YoloAttnError: A mistake that the user can mend.
    """
    from ..registry.plugins import load_file

    for file in options.plugin:
        load_file(file)
    if options.host != "ultralytics":
        from . import classic

        return int(classic.train(options))
    if options.export:
        from ..export.onnx import FORMATS

        if options.export not in FORMATS:
            raise UsageError(f"--export {options.export}: no such format, only {', '.join(FORMATS)}")
    try:
        with words.command_line():
            return _resume(options) if options.resume else _train(options)
    except OSError as exc:
        if exc.errno in REFUSED:
            where = f" ({exc.filename})" if exc.filename else ""
            raise YoloAttnError(
                f"the disk says: {exc.strerror}{where}. Checkpoints written before are intact."
            ) from exc
        raise


def _train(options: argparse.Namespace) -> int:
    if options.start and not options.weights:
        raise UsageError(
            "--start says how attention begins beside pretrained weights; from scratch, write it in the YAML"
        )
    with contextlib.ExitStack() as stack:
        if options.attention and (options.chosen_cfg or not options.weights):
            from .attention_file import made_for

            options.made = made_for(options)
            options.cfg, options.chosen_cfg = str(options.made.write(stack.enter_context(scratch()))), True
        return _start(options)


def _start(options: argparse.Namespace) -> int:
    path = find.require(options.cfg)
    d = load.read(path)
    check.validate({**d, "scale": find.split_scale(Path(options.cfg).stem)[1]}, str(options.cfg))
    args = host_arguments(options)
    args["data"] = str(shapes.make()) if options.embedded else str(options.extra.get("data", options.data))
    may_fetch = dataset.check(args["data"], single_cls=bool(args.get("single_cls")))
    weights = _weights(options.weights)
    if weights is not None and "Adam" in str(args.get("optimizer")):
        # The host warms biases up from 0.1, fifty times an adaptive optimizer's rate: that undoes what they had learned.
        args.setdefault("warmup_bias_lr", 0.0)
    _offline(may_fetch or (weights is not None and not Path(weights).is_file()))
    _writable(Path(args["project"]))
    host = _host(args)
    if options.embedded:
        announce("embedded data set: %s", args["data"])
    wanted = Path(args["project"]) / args["name"]
    if wanted.exists() and not args["exist_ok"]:
        announce("%s exists and is left alone: this run gets a number of its own (--exist-ok writes into it)", wanted)

    if weights is None:
        if not options.embedded:
            coco = published(*find.split_scale(Path(options.cfg).stem))
            hint = f". --weights {coco} would start from COCO" if coco else ""
            announce("no --weights: training from scratch%s.", hint)
        name = options.cfg if find.locate(options.cfg) else str(path)
        return _run(options, host.YOLO(name, task="detect"), args)
    with scratch() as folder:
        return _run(options, _pretrained(options, host, weights, folder), args)


def _pretrained(options: argparse.Namespace, host: Any, weights: str, folder: Path) -> Any:
    """The detector to start from: the checkpoint's own, or with --cfg that model with the checkpoint's weights."""
    from ..model_yaml.schedule import plan
    from ..weights import start_from

    def planned(model: Any) -> Any:
        if options.freeze_base or options.lr_new is not None:
            plan(model, freeze_base=options.freeze_base, lr_new=options.lr_new or 1.0)
        return model

    file = fetch(weights)
    if options.attention and not options.chosen_cfg:
        from .attention_file import attached

        handle, options.made = attached(options, file)
        target = folder / f"{Path(options.made.name).stem}_from_{file.stem}.pt"
        start_from.save(planned(handle.model), target)
        return host.YOLO(str(target))
    if not options.chosen_cfg and file.suffix == ".pt":
        return planned(host.YOLO(str(file)))
    start = options.start or "identity"
    model, report = start_from.build(file, options.cfg, start=start)
    announce("%s", report.table().splitlines()[-1])
    if report.until_trained:
        announce("%s", report.until_trained)
    target = folder / f"{Path(options.cfg).stem}_from_{file.stem}.pt"
    start_from.save(planned(model), target)
    return host.YOLO(str(target))


def _resume(options: argparse.Namespace) -> int:
    last = runs.checkpoint_to_resume(options.resume, expand(options.project).resolve())
    _offline(False)
    host = _host({"device": options.device, **options.extra})
    _check_checkpoint(last)
    with runs.held(last.parent.parent if last.parent.name == "weights" else last.parent):
        state = runs.state_of(last)
        return _go_on(options, host, last) if state.resumable else _finish(options, last)


def _finish(options: argparse.Namespace, last: Path) -> int:
    """Do what is left of a run whose epochs had all ended when it was stopped: the strip, the picture, the export.

    Raises:
        CheckpointError: Nothing is left to do.
    """
    from ultralytics.utils.torch_utils import strip_optimizer

    from ..export.report import proved

    folder, best = last.parent.parent, last.with_name("best.pt")
    best = best if best.is_file() else last
    trained = runs.arguments_of(last)
    unstripped = [p for p in {last, best} if not runs.state_of(p).stripped]
    picture = bool(trained.get("plots", True)) and not (folder / PICTURE).is_file()
    embedded = cache_folder().resolve() in Path(str(trained.get("data"))).resolve().parents
    export = bool(options.export or (embedded and not options.no_export)) and not proved(best.with_suffix(".onnx"))
    if not (unstripped or picture or export):
        raise CheckpointError(
            f"{last} is a finished run and cannot be resumed. To train on from it: {runs.train_on(last)}. "
            f"To write it as ONNX and prove that: yolo-attn export {shlex.quote(str(best))}"
        )
    announce("%s: all epochs had ended; going on with what comes after them", last)
    import torch

    with runs.whole_checkpoints(torch):
        for file in unstripped:
            strip_optimizer(file)
    options.embedded = options.embedded or embedded
    options.cfg = str(trained.get("model") or options.cfg)
    return _after_training(options, folder, best, last, {**trained, "plots": picture}, export)


def _go_on(options: argparse.Namespace, host: Any, last: Path) -> int:
    model = host.YOLO(str(last))
    args = {"resume": str(last), **options.extra}
    for key in ("batch", "imgsz", "workers", "patience"):
        if getattr(options, key) is not None:
            args[key] = getattr(options, key)
    if options.device:
        args["device"] = options.device
    if options.data:
        dataset.check(options.data, single_cls=bool((model.ckpt.get("train_args") or {}).get("single_cls")))
        args["data"] = options.data
    options.cfg = Path(str(model.model.yaml.get("yaml_file") or options.cfg)).name
    announce("resuming %s after epoch %d", last, model.ckpt["epoch"] + 1)
    return _run(options, model, args)


def _run(options: argparse.Namespace, model: Any, args: dict[str, Any]) -> int:
    from .trainer import Trainer

    _check_model(options, model, args)
    if options.made is not None:
        from .attention_file import keep

        model.add_callback("on_pretrain_routine_start", functools.partial(keep, made=options.made))
    try:
        model.train(trainer=Trainer, **args)
    except NotImplementedError as exc:  # the host's word for an optimizer that it does not know
        raise UsageError(first_line(exc)) from exc
    except KeyboardInterrupt as exc:
        print(f"\nstopped. {_how_to_go_on(getattr(getattr(model, 'trainer', None), 'last', None))}", file=sys.stderr)
        return exit_code(exc)
    folder, best, last = (Path(p) for p in (model.trainer.save_dir, model.trainer.best, model.trainer.last))
    if options.made is not None:
        options.cfg = str(folder / options.made.name)  # the next commands name what is kept
    best = best if best.is_file() else last
    if not best.is_file():
        raise YoloAttnError(f"the run in {folder} ended without a checkpoint; what the host printed above says why")
    # In a run on several GPUs this process only launched the others: the checkpoint knows what they did.
    trained = vars(model.trainer.args)
    export = bool(options.export or (options.embedded and not options.no_export))
    try:
        return _after_training(options, folder, best, last, trained, export)
    except KeyboardInterrupt as exc:
        print(f"\nstopped. All epochs had ended. To go on: {command('--resume', str(last))}", file=sys.stderr)
        return exit_code(exc)


def _after_training(
    options: argparse.Namespace, folder: Path, best: Path, last: Path, trained: dict[str, Any], export: bool
) -> int:
    """Picture, export and prove what was trained, and say what comes next."""
    lines = [f"weights     {best}", f"            {last}", f"log         {folder / 'results.csv'}"]
    if trained.get("plots", True):
        from . import pictures

        lines.append(f"picture     {pictures.truth_beside_prediction(best, trained['data'], folder, trained['imgsz'])}")
    if export:
        from ..export.onnx import export as write

        result = write(best, format=options.export or "onnx", imgsz=trained["imgsz"])
        lines.append(f"export      {result.path}")
    told = filter(None, ["\n" + "\n".join(lines), found_nothing(folder / "results.csv"), next_steps(options, best)])
    print("\n\n".join(told))
    return 0


def _how_to_go_on(last: Any) -> str:
    if last is None or not Path(last).is_file():
        return "The first epoch had not ended: there is nothing to resume"
    if not runs.state_of(Path(last)).resumable:
        return f"All epochs had ended: {Path(last).parent} has the weights. To go on: {command('--resume', str(last))}"
    return f"To go on: {command('--resume', str(last))}"


def _offline(needs_network: bool) -> None:
    """Ask for nothing that is not needed: a network that swallows packets stalls each look-up for seconds.

    The host reads this when it is imported. A run that may fetch weights or data keeps the host's behaviour.
    """
    if not needs_network and "ultralytics" not in sys.modules:
        os.environ.setdefault("YOLO_OFFLINE", "true")


def _host(args: dict[str, Any]) -> Any:
    from ..errors import HostError
    from ..hook.install import failures, install, repair
    from ..patches import HOSTS

    try:
        import ultralytics
        from ultralytics.utils import DEFAULT_CFG_DICT
    except ImportError as exc:
        version = getattr(sys.modules.get("ultralytics"), "__version__", None)
        if version is not None and exc.name == "ultralytics.utils":
            raise HostError(
                f"ultralytics {version} is older than what the kit works with. "
                f"'pip install -U ultralytics'. Supported: {HOSTS[0].supported()}"
            ) from exc
        raise HostError(f"the ultralytics package cannot be imported: {exc}. 'pip install ultralytics'") from exc
    repair()
    install(strict=True)
    keep_apostrophes()
    if "ultralytics" in failures():
        raise failures()["ultralytics"]
    for key in list(args):
        if key in OWN:
            raise UsageError(f"'{key}=' is not taken here; {OWN[key]}")
        if key not in DEFAULT_CFG_DICT:
            raise UsageError(
                f"'{key}' is no training argument of ultralytics {ultralytics.__version__}."
                f"{did_you_mean(key, DEFAULT_CFG_DICT)}"
            )
    _check_values(args)
    _check_device(args.get("device"))
    return ultralytics


def _check_values(args: dict[str, Any]) -> None:
    """Refuse what the host would refuse with a traceback, and what it would take for something else."""
    from ultralytics.cfg import get_cfg

    try:
        get_cfg(overrides=dict(args))
    except (TypeError, ValueError, SyntaxError) as exc:
        raise UsageError(first_line(exc)) from exc
    epochs, batch, imgsz = (args.get(k) for k in ("epochs", "batch", "imgsz"))
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs {epochs}: at least 1")
    if batch not in (None, -1) and not (batch >= 1 if isinstance(batch, int) else 0 < batch < 1):
        raise UsageError(f"--batch {batch}: a number of images, or -1, with which the host finds one that fits the GPU")
    sides = imgsz if isinstance(imgsz, (list, tuple)) else [imgsz]
    if imgsz is not None and not all(type(n) is int and n > 0 for n in sides):
        raise UsageError(f"--imgsz {imgsz}: a number of pixels, such as 640")


def _check_model(options: argparse.Namespace, model: Any, args: dict[str, Any]) -> None:
    from ..weights.attention import attention_in

    rows = model.model.model
    if not hasattr(rows[-1], "nc"):
        raise ConfigError(f"{options.cfg}: the last row is {type(rows[-1]).__name__}; a detector's last row is Detect.")
    if not hasattr(rows[-1], "stride"):
        raise ConfigError(
            f"{options.cfg}: ends in {type(rows[-1]).__name__}, which the host does not train as a YOLO detector. "
            f"From Python: import yolo_attn; from ultralytics import RTDETR; RTDETR({options.cfg!r}).train(data=...)"
        )
    freeze = args.get("freeze") or 0
    last = len(rows) - 1
    bad = [n for n in (freeze if isinstance(freeze, list) else [freeze]) if isinstance(n, int) and not 0 <= n <= last]
    if bad:
        raise UsageError(f"--freeze {bad[0]}: the rows are 0 to {last}, and the last is what detects")
    frozen = set(freeze) if isinstance(freeze, list) else set(range(freeze))
    stuck = sorted(frozen & {int(path.split(".")[1]) for path in attention_in(model.model)})
    if stuck:
        announce(
            "--freeze freezes the attention in rows %s as well; --freeze base:3 is the one that trains it first", stuck
        )


def _check_device(device: Any) -> None:
    """The host's own message for a missing GPU is a page long and a traceback."""
    import torch

    text = "" if device is None else str(device).lower()
    words = [w.strip("'\" ") for w in text.replace("cuda:", "").strip("[]()").split(",")]
    words = ["0" if w == "cuda" else w for w in words if w]
    if words == ["cpu"] or any(w.startswith(("mps", "npu", "xpu", "tpu", "intel", "vulkan")) for w in words):
        return
    try:
        numbers = [int(w) for w in words]
    except ValueError:
        raise UsageError(f"--device {device}: cpu, mps, the number of a GPU, or several, such as 0,1") from None
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if numbers and max(numbers) >= found:
        have = f"GPUs 0 to {found - 1}" if found > 1 else "GPU 0 only" if found else "no GPU that PyTorch can use"
        raise UsageError(f"--device {device}: this machine has {have}. --device cpu always works.")


def _weights(name: str) -> str | None:
    if not name or name.lower() in ("''", '""', "none"):
        return None
    path = expand(name)
    if path.is_file():
        _check_checkpoint(path)
        return str(path)
    if path.parent != Path(".") or path.suffix not in (".pt", ""):
        raise CheckpointError(f"weights not found: {name} (looked in {Path.cwd()})")
    return name  # a published name: the host fetches it, or says that it cannot


def _check_checkpoint(path: Path) -> None:
    import zipfile

    if not path.is_file():
        raise CheckpointError(f"checkpoint not found: {path} (looked in {Path.cwd()})")
    if path.suffix == ".pt" and not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            legacy = file.read(2) == b"\x80\x02"  # what torch wrote before 1.6
        if not legacy:
            raise CheckpointError(
                f"{path} is no checkpoint, or is cut short ({path.stat().st_size} bytes). Use another copy: last.pt, best.pt "
                f"or an epoch's file of the same run."
            )


def _writable(folder: Path) -> None:
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise DataError(f"cannot write to {folder}: {nearest} is {'not writable' if nearest.is_dir() else 'a file'}")
