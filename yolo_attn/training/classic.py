"""Train with classic YOLOv5: translate the flags of `train_detect.py` to those of the `train.py` of a checkout or package.

The host runs in a process of its own, launched as `python -m yolo_attn run train.py ...`, for several GPUs with
`torchrun`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from .._name import PACKAGE
from ..errors import CheckpointError, ConfigError, FileError, HostError, UsageError, did_you_mean
from ..evaluation import dataset
from ..files import expand, read_source, write_text
from ..hook.checkout import find_host
from ..hook.memory_need import TRAINING
from ..log import announce
from ..model_yaml import check, find, load
from ..model_yaml.reader import read_mapping
from ..model_yaml.start import STARTS, with_start
from ..system import launch
from ..system.drafts import scratch
from ..system.shell import Terminated, exit_code
from . import host_imports, runs, shapes
from .closing import found_nothing
from .options import EMBEDDED

__all__ = ["arguments", "train"]

STOPPED = (130, 143)  # by Ctrl-C, by SIGTERM
HYPERPARAMETERS = ("data/hyps/hyp.scratch-low.yaml", "data/hyps/hyp.scratch.yaml")


def train(options: argparse.Namespace) -> int:
    """Train as the options say, export if requested, and return the exit code.

    Raises:
        YoloAttnError: An error that the user can fix.
    """
    host = find_host(options.host)
    host_imports.require(host)
    with scratch() as made:
        argv, folder = arguments(options, host, made)
        if "'" in str(folder):
            raise FileError(
                f"{folder}: classic YOLOv5 removes apostrophes from paths. Choose another folder with --project DIR."
            )
        with runs.held(folder):
            return _trained(options, host, argv, folder)


def _trained(options: argparse.Namespace, host: Path, argv: list[str], folder: Path) -> int:
    last = folder / "weights" / "last.pt"
    if options.made is not None:
        argv[argv.index(options.cfg)] = options.cfg = str(options.made.write(folder))
    if options.resume and last.is_file():  # missing if an epoch's checkpoint of another name is resumed
        _prepare(last, folder)
    env = {runs.LAUNCHER: runs.launcher(folder)} | ({} if options.force else {TRAINING: "1"})
    if options.log_gates:
        from . import gate_log

        env.update(gate_log.of_classic(argv, folder))
    code = _run(host / "train.py", argv, _gpus(options.device), options.plugin, _in_front(options), env)
    if code:
        if code in STOPPED and last.is_file():
            print(f"\nstopped. To resume: --host {options.host} --resume {last}", file=sys.stderr)
        return code
    best = folder / "weights" / "best.pt"
    best = best if best.is_file() else best.with_name("last.pt")
    if not best.is_file():
        raise HostError(f"the run in {folder} ended without a checkpoint; see YOLOv5's output above")
    lines = [f"weights     {best}", f"log         {folder / 'results.csv'}"]
    if options.export or (options.embedded and not options.no_export):
        wanted = options.export or "onnx"
        size = str(options.imgsz or (EMBEDDED["imgsz"] if options.embedded else 640))
        target = best.with_suffix(f".{wanted}")
        if wanted == "onnx":  # the kit's own exporter, which verifies the file
            code = _kit(["export", str(best), "--host", options.host, "--imgsz", size, *_named(options.plugin)])
        else:
            asked = ["--weights", str(best), "--include", wanted, "--img", size, "--device", "cpu"]
            code = _run(host / "export.py", asked, 1, options.plugin, [])
        if code or (wanted == "onnx" and not target.is_file()):
            raise HostError(f"the export to {wanted} failed; see the output above. {best} is intact")
        lines.append(f"export      {target}")
    print("\n" + "\n".join(lines))
    if found_nothing(folder / "results.csv"):
        print("\n" + found_nothing(folder / "results.csv"))
    return 0


def _prepare(last: Path, folder: Path) -> None:
    """Prepare a run's folder for resuming: trim its log, and update paths if the folder was moved.

    Raises:
        CheckpointError: The run is finished.
    """
    state = runs.state_of(last)
    if not state.resumable:
        raise CheckpointError(
            f"{last} is of a finished run and cannot be resumed. To continue training from it: {runs.train_on(last)}. "
            f"To export it: yolo-attn export {shlex.quote(str(last.with_name('best.pt')))}"
        )
    runs.trim_log(folder / "results.csv", state.epoch, first=0)
    asked = folder / "opt.yaml"
    if asked.is_file():
        opt = read_mapping(asked, CheckpointError, "It should contain the options of a run.")
        before = str(opt.get("save_dir") or folder)
        if Path(before).resolve() != folder:
            announce("the run began in %s and is resumed in %s", before, folder)
            opt.update(save_dir=str(folder), project=str(folder.parent), name=folder.name)
            write_text(asked, yaml.safe_dump(opt, sort_keys=False))


def arguments(options: argparse.Namespace, host: Path, made: Path) -> tuple[list[str], Path]:
    """Return the arguments of the host's `train.py` and the folder of the run.

    Args:
        options: The flags of `train_detect.py`.
        host: The folder of `train.py`.
        made: A folder for generated files: changed hyperparameters, the YAML of --attention.

    Raises:
        UsageError: This version of the host has no such flag.
        ConfigError: A model or hyperparameter file cannot be used.
        DataError: The data set cannot be used.
    """
    text = read_source(host / "train.py")
    if options.resume:
        return _resume(options)
    extra = dict(options.extra)
    chosen: dict[str, Any] = {}
    if options.embedded:
        chosen = {k: EMBEDDED[k] for k in ("imgsz", "batch", "epochs")}
    chosen.update({k: v for k, v in _stated(options).items() if v is not None})
    for key in list(extra):
        if key in chosen or key in ("imgsz", "batch", "epochs", "workers", "patience", "optimizer"):
            chosen[key] = extra.pop(key)
    project = expand(str(extra.pop("project", options.project))).resolve()
    folder = _free(project / str(extra.pop("name", options.name)), options.exist_ok)
    where = str(shapes.make()) if options.embedded else str(extra.pop("data", options.data))
    may_fetch = dataset.check(where)
    weights = _weights(options.weights)
    if not may_fetch and (not weights or Path(weights).is_file()):
        os.environ.setdefault("YOLO_OFFLINE", "true")  # nothing to download: do not wait for a missing network
    if options.attention:
        from .attention_file import made_for

        options.made = made_for(options)
        options.cfg, options.chosen_cfg = str(options.made.write(made).resolve()), True
    cfg = _cfg(options.cfg) if options.chosen_cfg or not weights else ""  # without --cfg, the model of the weights
    argv = ["--cfg", cfg, "--weights", weights, "--data", _absolute(where)]
    argv += ["--project", str(folder.parent), "--name", folder.name, "--exist-ok"]
    hyp = _hyperparameters(options, host, extra)
    if hyp is not None:
        file = made / "hyp.yaml"
        write_text(file, yaml.safe_dump(hyp, sort_keys=False), durable=False)
        argv += ["--hyp", str(file)]
    names = {"imgsz": "--imgsz", "batch": "--batch-size", "save_period": "--save-period"}
    for key, value in chosen.items():
        if key != "optimizer":
            flag = names.get(key, f"--{key}")
            argv += [_known(flag, text, options), str(value)]
    argv += _optimizer(str(chosen.get("optimizer") or ""), text, options)
    if options.freeze is not None:
        rows = options.freeze if isinstance(options.freeze, list) else [options.freeze]
        if len(rows) > 1 and "nargs='+'" not in text and 'nargs="+"' not in text:
            raise UsageError(f"--freeze takes one number in this YOLOv5 version, got {rows}")
        argv += ["--freeze", *map(str, rows)]
    if "--seed" in text:
        argv += ["--seed", str(options.seed)]
    for switch in ("cos_lr", "single_cls", "rect", "multi_scale", "noplots", "noval"):
        if getattr(options, switch):
            argv.append(_known(f"--{switch.replace('_', '-')}", text, options))
    if options.device:
        argv += ["--device", options.device]
    return argv, folder


def _stated(options: argparse.Namespace) -> dict[str, Any]:
    names = ("imgsz", "batch", "epochs", "workers", "patience", "save_period", "cache", "optimizer")
    return {n: getattr(options, n) for n in names}


def _known(flag: str, text: str, options: argparse.Namespace) -> str:
    if f"'{flag}'" not in text and f'"{flag}"' not in text:
        raise UsageError(f"{flag}: the train.py of {options.host} has no such flag; update that YOLOv5")
    return flag


def _optimizer(name: str, text: str, options: argparse.Namespace) -> list[str]:
    if not name or name == "auto":
        return []
    if "'--optimizer'" in text or '"--optimizer"' in text:
        return ["--optimizer", name]
    if name == "SGD":
        return []
    if name == "Adam" and "'--adam'" in text:
        return ["--adam"]
    raise UsageError(f"--optimizer {name}: the YOLOv5 in {options.host} supports SGD and Adam only")


def _cfg(name: str) -> str:
    find.require(name)
    return _absolute(name)


def _absolute(name: str) -> str:
    path = expand(name)
    return str(path.resolve()) if path.exists() or path.parent != Path(".") else name


def _weights(name: str) -> str:
    if not name or name.lower() in ("''", '""', "none"):
        return ""
    path = expand(name)
    if path.is_file():
        if path.suffix.lower() != ".pt":
            raise CheckpointError(f"{path}: classic YOLOv5 starts from .pt files. Give the checkpoint that this was made of: --weights best.pt")
        return str(path.resolve())
    if path.parent != Path(".") or path.suffix != ".pt":
        raise CheckpointError(f"weights not found: {name} (looked in {Path.cwd()})")
    return name  # a published name, which the host downloads


def _hyperparameters(options: argparse.Namespace, host: Path, extra: dict[str, Any]) -> dict[str, Any] | None:
    """The host's hyperparameters with the changes of the user and the embedded data set; None if there are none."""
    own = next((host / n for n in HYPERPARAMETERS if (host / n).is_file()), None)
    hyp: dict[str, Any] = yaml.safe_load(read_source(own)) if own is not None else {}
    changed = dict(extra)
    if options.hyp:
        path = Path(options.hyp)
        try:
            read = read_mapping(path, ConfigError, "A hyperparameter file maps names to numbers.")
        except ConfigError as exc:
            raise ConfigError(f"--hyp {exc}") from exc
        left = sorted(read.keys() - hyp.keys()) if hyp else []
        if left:
            announce("--hyp %s: ignoring %s, which classic YOLOv5 does not have", path, ", ".join(left))
        changed = {**{k: v for k, v in read.items() if k not in left}, **extra}
    unknown = sorted(extra.keys() - hyp.keys()) if hyp else []
    if unknown:
        raise UsageError(f"'{unknown[0]}' is not a hyperparameter of classic YOLOv5.{did_you_mean(unknown[0], hyp)}")
    if options.embedded:
        changed = {"mosaic": EMBEDDED["mosaic"], **changed}
    return {**hyp, **changed} if changed else None


def _resume(options: argparse.Namespace) -> tuple[list[str], Path]:
    last = runs.checkpoint_to_resume(options.resume, expand(options.project).resolve())
    return ["--resume", str(last)], last.parent.parent


def _free(folder: Path, exist_ok: bool) -> Path:
    """Return the folder, or the first of folder2, folder3, ... that does not exist, as YOLOv5 does."""
    if exist_ok or not folder.exists():
        return folder
    return next(p for p in (folder.with_name(f"{folder.name}{n}") for n in range(2, 9999)) if not p.exists())


def _gpus(device: str) -> int:
    return len([d for d in device.split(",") if d.strip().isdigit()])


def _in_front(options: argparse.Namespace) -> list[str]:
    """Return the options of `yolo-attn run` before the script: start, freezing and learning rate of attention."""
    if options.resume:
        return []  # stored in the checkpoint
    words = []
    start = options.start or "identity"
    if options.weights and options.chosen_cfg and start != "yaml":
        if _can_begin(options.cfg):
            how = "the identity" if start == "identity" else "its paper says"
            announce("--start: attention that can begins as %s", how)
        words += ["--start", start]
    if options.freeze_base:
        words += ["--freeze", f"base:{options.freeze_base}"]
    if options.lr_new is not None:
        words += ["--lr-new", str(options.lr_new)]
    return words


def _can_begin(cfg: str) -> bool:
    """Whether a model YAML has attention with a choice of start; true where only its own plug-ins know."""
    d = load.read(find.require(cfg))
    if d.get("register"):
        return True
    check.validate(d, cfg)
    return any(with_start(d, word)[0] != d for word in STARTS)


def _run(
    script: Path,
    argv: list[str],
    processes: int,
    plugins: list[str],
    in_front: list[str],
    env: Mapping[str, str] = MappingProxyType({}),
) -> int:
    return _kit(["run", *_named(plugins), *in_front, str(script), *argv], processes, env)


def _named(plugins: list[str]) -> list[str]:
    return [word for file in plugins for word in ("--plugin", str(Path(file).resolve()))]


def _kit(argv: list[str], processes: int = 1, env: Mapping[str, str] = MappingProxyType({})) -> int:
    """Run the kit's command line in processes of their own and return its exit code, one of STOPPED after Ctrl-C or SIGTERM."""
    words = launch.command(PACKAGE, *argv)
    if processes > 1:  # which would launch each with `python -m`
        words = launch.command("torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "--no_python", *words)
    child = subprocess.Popen(words, env=launch.environment(env))
    try:
        code = child.wait()
    except KeyboardInterrupt as exc:  # the terminal sends Ctrl-C to the child too, but not SIGTERM
        if isinstance(exc, Terminated):
            child.terminate()
        try:
            child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            child.kill()
        return exit_code(exc)
    return {-signal.SIGINT: 130, -signal.SIGTERM: 143}.get(code, code)
