"""Train with ultralytics: train, validate, draw predictions, export and verify, print next commands."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from .. import words
from ..errors import CheckpointError, UsageError, YoloAttnError, first_line
from ..evaluation import dataset
from ..files import REFUSED, cache_folder, expand
from ..hook.memory_need import quiet, refuse_count, refuse_too_large
from ..log import announce
from ..model_yaml import check, find, load
from ..registry import plugins
from ..system.drafts import scratch
from ..system.shell import exit_code
from ..weights.published import fetch
from . import checks, runs, shapes
from .closing import command, found_nothing, next_steps, published
from .options import host_arguments

__all__ = ["main"]

PICTURE = "truth_and_prediction.jpg"


def main(options: argparse.Namespace) -> int:
    """Train as the options say.

    Returns:
        The exit code: 0, 130 after Ctrl-C, or 143 after SIGTERM.

    Raises:
        YoloAttnError: An error that the user can fix.
    """
    from ..registry.plugins import load_file

    for file in options.plugin:
        load_file(file)
    if options.log_gates:
        from . import gate_log

        gate_log.require()
        if options.host == "ultralytics":
            os.environ.update(gate_log.watched())  # for the workers of several GPUs as well
    if options.host != "ultralytics":
        from . import classic

        return int(classic.train(options))
    if options.export:
        from ..export.formats.table import NAMES

        if options.export not in NAMES:
            raise UsageError(f"--export {options.export}: unknown format, choose from {', '.join(NAMES)}")
    try:
        with words.command_line():
            return _resume(options) if options.resume else _train(options)
    except OSError as exc:
        if exc.errno in REFUSED:
            file = f" ({exc.filename})" if exc.filename else ""
            raise YoloAttnError(f"cannot write: {exc.strerror}{file}. Checkpoints written before are intact.") from exc
        raise


def _train(options: argparse.Namespace) -> int:
    if options.start and not options.weights:
        raise UsageError("--start needs --weights; to train from scratch, set the start option in the YAML's rows")
    with contextlib.ExitStack() as stack:
        if options.attention and (options.chosen_cfg or not options.weights):
            from .attention_file import made_for

            options.made = made_for(options)
            options.cfg, options.chosen_cfg = str(options.made.write(stack.enter_context(scratch()))), True
        return _begin(options)


def _begin(options: argparse.Namespace) -> int:
    path = find.require(options.cfg)
    d = load.read(path)
    check.validate({**d, "scale": find.split_scale(Path(options.cfg).stem)[1]}, str(options.cfg))
    args = host_arguments(options)
    args["data"] = str(shapes.make()) if options.embedded else str(options.extra.get("data", options.data))
    may_fetch = dataset.check(args["data"], single_cls=bool(args.get("single_cls")))
    weights = checks.check_weights(options.weights)
    if weights is not None and "Adam" in str(args.get("optimizer")):
        # The host warms biases up from 0.1, fifty times the rate of an adaptive optimizer: pretrained ones would be lost.
        args.setdefault("warmup_bias_lr", 0.0)
    checks.offline(may_fetch or (weights is not None and not Path(weights).is_file()))
    checks.check_writable(Path(args["project"]))
    host = checks.open_host(args)
    if options.embedded:
        announce("embedded data set: %s", args["data"])
    wanted = Path(args["project"]) / args["name"]
    if wanted.exists() and not args["exist_ok"]:
        announce("%s exists: this run gets a new number (use --exist-ok to write into it)", wanted)

    if weights is None:
        if not options.embedded:
            coco = published(*find.split_scale(Path(options.cfg).stem))
            hint = f"; --weights {coco} uses COCO weights" if coco else ""
            announce("no --weights: training from scratch%s.", hint)
        name = options.cfg if find.locate(options.cfg) else str(path)
        if not options.force:
            parser = importlib.import_module("ultralytics.nn.tasks")
            plugins.load_register(d, path.parent, str(name))  # first, since it says whose code runs
            with quiet():  # the host reads the file again, and says what else is to be said
                read = load.load_ultralytics(name, path)
            refuse_too_large(read, str(options.cfg), parser, training=True)
        return _run(options, host.YOLO(name, task="detect"), args)
    with scratch() as folder:
        return _run(options, _pretrained(options, host, weights, folder), args)


def _pretrained(options: argparse.Namespace, host: Any, weights: str, folder: Path) -> Any:
    """Return the detector to train: that of the checkpoint, or with --cfg that model with the checkpoint's weights."""
    from ..detectors.opening import host_handle
    from ..model_yaml.schedule import plan
    from ..weights import start_from

    def planned(model: Any) -> Any:
        if options.freeze_base or options.lr_new is not None:
            plan(model, freeze_base=options.freeze_base, lr_new=options.lr_new or 1.0)
        return model

    def fits(handle: Any) -> None:
        if not options.force:
            refuse_count(sum(p.numel() for p in handle.model.parameters()), weights, training=True)

    file = fetch(weights)
    if options.attention and not options.chosen_cfg:
        from .attention_file import attached

        handle, options.made = attached(options, file)
        fits(handle)
        target = folder / f"{Path(options.made.name).stem}_from_{file.stem}.pt"
        start_from.save(planned(handle.model), target)
        return host.YOLO(str(target))
    if not options.chosen_cfg and file.suffix == ".pt":
        handle = host_handle(file)
        fits(handle)
        return planned(handle)
    start = options.start or "identity"
    model, report = start_from.build(file, options.cfg, start=start, training=True, large=options.force)
    announce("%s", report.table().splitlines()[-1])
    if report.until_trained:
        announce("%s", report.until_trained)
    model.weights_from = file.name  # the host loads the file below, which is gone when its line is read
    target = folder / f"{Path(options.cfg).stem}_from_{file.stem}.pt"
    start_from.save(planned(model), target)
    return host.YOLO(str(target))


def _resume(options: argparse.Namespace) -> int:
    last = runs.checkpoint_to_resume(options.resume, expand(options.project).resolve())
    checks.offline(False)
    checks.open_host({"device": options.device, **options.extra})
    checks.check_checkpoint(last)
    with runs.held(last.parent.parent if last.parent.name == "weights" else last.parent):
        state = runs.state_of(last)
        return _go_on(options, last) if state.resumable else _finish(options, last)


def _finish(options: argparse.Namespace, last: Path) -> int:
    """Complete a run that was stopped after its last epoch: strip checkpoints, draw predictions, export.

    Raises:
        CheckpointError: Nothing is left to do.
    """
    from ultralytics.utils.torch_utils import strip_optimizer

    folder, best = last.parent.parent, last.with_name("best.pt")
    best = best if best.is_file() else last
    trained = runs.arguments_of(last)
    unstripped = [p for p in {last, best} if not runs.state_of(p).stripped]
    picture = bool(trained.get("plots", True)) and not (folder / PICTURE).is_file()
    embedded = cache_folder().resolve() in Path(str(trained.get("data"))).resolve().parents
    export = bool(options.export or (embedded and not options.no_export)) and not _exported(best)
    if not (unstripped or picture or export):
        raise CheckpointError(
            f"{last} is of a finished run and cannot be resumed. To continue training from it: {runs.train_on(last)}. "
            f"To export it: yolo-attn export {shlex.quote(str(best))}"
        )
    announce("%s: all epochs are done; completing the run", last)
    import torch

    with runs.whole_checkpoints(torch):
        for file in unstripped:
            strip_optimizer(file)
    options.embedded = options.embedded or embedded
    options.cfg = str(trained.get("model") or options.cfg)
    return _after_training(options, folder, best, last, {**trained, "plots": picture}, export)


def _exported(best: Path) -> bool:
    """Whether an ONNX file of these very weights is there and proved; one of an earlier epoch is not."""
    from ..detectors.opening import open_source
    from ..export.described import weights_digest
    from ..export.report import proved
    from ..runtime.proved import read_report

    model = best.with_suffix(".onnx")
    return proved(model) and (read_report(model) or {}).get("weights") == weights_digest(open_source(best).model)


def _go_on(options: argparse.Namespace, last: Path) -> int:
    from ..detectors.opening import host_handle

    model = host_handle(last)
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

    checks.check_model(options, model, args)
    if options.made is not None:
        from .attention_file import keep

        model.add_callback("on_pretrain_routine_start", functools.partial(keep, made=options.made))
    try:
        model.train(trainer=Trainer, **args)
    except NotImplementedError as exc:  # raised by the host for an unknown optimizer
        raise UsageError(first_line(exc)) from exc
    except KeyboardInterrupt as exc:
        print(f"\nstopped. {_how_to_resume(getattr(getattr(model, 'trainer', None), 'last', None))}", file=sys.stderr)
        return exit_code(exc)
    folder, best, last = (Path(p) for p in (model.trainer.save_dir, model.trainer.best, model.trainer.last))
    if options.made is not None:
        options.cfg = str(folder / options.made.name)  # for the next commands
    best = best if best.is_file() else last
    if not best.is_file():
        raise YoloAttnError(f"the run in {folder} ended without a checkpoint; see the host's output above")
    # With several GPUs, this process only launched the workers.
    trained = vars(model.trainer.args)
    export = bool(options.export or (options.embedded and not options.no_export))
    try:
        return _after_training(options, folder, best, last, trained, export)
    except KeyboardInterrupt as exc:
        print(f"\nstopped after the last epoch. To complete the run: {command('--resume', str(last))}", file=sys.stderr)
        return exit_code(exc)


def _after_training(
    options: argparse.Namespace, folder: Path, best: Path, last: Path, trained: dict[str, Any], export: bool
) -> int:
    """Draw predictions, export and verify the detector, and print the next commands."""
    lines = [f"weights     {best}", f"            {last}", f"log         {folder / 'results.csv'}"]
    if trained.get("plots", True):
        from . import pictures

        lines.append(f"image       {pictures.truth_beside_prediction(best, trained['data'], folder, trained['imgsz'])}")
    if export:
        from ..export.single import export as write

        result = write(best, format=options.export or "onnx", imgsz=trained["imgsz"])
        lines.append(f"export      {result.path}")
    told = filter(None, ["\n" + "\n".join(lines), found_nothing(folder / "results.csv"), next_steps(options, best)])
    print("\n\n".join(told))
    return 0


def _how_to_resume(last: Any) -> str:
    if last is None or not Path(last).is_file():
        return "The first epoch was not complete: there is nothing to resume"
    if not runs.state_of(Path(last)).resumable:
        return f"All epochs are done, the weights are in {Path(last).parent}. To complete the run: {command('--resume', str(last))}"
    return f"To resume: {command('--resume', str(last))}"
