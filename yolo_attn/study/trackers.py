"""What a study hangs into a host's callbacks: tags for experiment trackers, and the pause at the end of a rung.

The hosts report to TensorBoard, MLflow and Weights & Biases by themselves, where the user has switched that on. A study
adds to each run which study, config and seed it is. Classic YOLOv5 trains in a process of its own, which learns it from
an environment variable.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import first_line
from ..log import announce

__all__ = ["PAUSED", "Paused", "follow_classic", "follow_ultralytics", "name"]

VARIABLE = "YOLO_ATTN_STUDY"
PAUSED = 75  # exit code of a training that stopped at the end of a rung, to go on later
LONGEST = 64  # characters of a tag of Weights & Biases


class Paused(BaseException):
    """A training has reached the end of its rung; no error, and nothing that a host may catch as one."""


def name(about: Mapping[str, Any], *, until: int | None = None) -> None:
    """Say for the next training in this process, and in those that it launches, what it is.

    Experiment and run of MLflow, group and tags of Weights & Biases are set where the environment says nothing of them.

    Args:
        about: ``study``, ``config`` and ``seed``.
        until: The epoch, counted from 1, after which to pause.
    """
    os.environ[VARIABLE] = json.dumps({**about, "until": until})
    if not about:
        return
    run = f"{about['config']}-{about['seed']}"
    defaults = {
        "MLFLOW_EXPERIMENT_NAME": about["study"], "MLFLOW_RUN": run,
        "WANDB_RUN_GROUP": about["study"], "WANDB_NAME": run,
    }  # fmt: skip
    for key, value in defaults.items():
        os.environ.setdefault(key, str(value))


def told() -> dict[str, Any]:
    """Return what :func:`name` said, ``until`` among it."""
    return dict(json.loads(os.environ.get(VARIABLE) or "{}"))


# -- ultralytics


def follow_ultralytics() -> None:
    """Hang into the callbacks of the next trainings in this process.

    The host adds its trackers' callbacks behind these, so that a rung ends where the next epoch would begin.
    """
    from ultralytics.utils.callbacks.base import default_callbacks

    default_callbacks["on_train_start"].append(_begin)
    default_callbacks["on_train_epoch_start"].append(_pause)


def _begin(trainer: Any) -> None:
    tag({
        "TensorBoard": lambda: _of("ultralytics.utils.callbacks.tensorboard", "WRITER"),
        "MLflow": _mlflow,
        "Weights & Biases": lambda: _of("wandb", "run"),
    })  # fmt: skip


def _pause(trainer: Any) -> None:
    until = told().get("until")
    if until and trainer.epoch >= until:
        mlflow = _mlflow() if getattr(trainer, "_mlflow_started_run", True) else None
        if mlflow is not None:
            mlflow.end_run()  # the host would call it failed
        raise Paused


def _of(module: str, attribute: str) -> Any:
    """What a module that is imported has; else None."""
    return getattr(sys.modules.get(module), attribute, None)


def _mlflow() -> Any:
    active = _of("mlflow", "active_run")
    return sys.modules["mlflow"] if active is not None and active() is not None else None


# -- classic


def follow_classic() -> None:
    """Hang into the callbacks of the classic training in this process: called once its loss is made."""
    for module in ("utils.callbacks", "yolov5.utils.callbacks"):
        cls = getattr(sys.modules.get(module), "Callbacks", None)
        if cls is not None and not hasattr(cls.run, "__wrapped__"):
            cls.run = _watched(cls.run)


def _watched(original: Callable[..., Any]) -> Callable[..., Any]:
    begun: list[bool] = []

    @functools.wraps(original)
    def run(self: Any, hook: str, *args: Any, **more: Any) -> Any:
        if not begun:
            begun.append(True)
            _begin_classic(self)
        result = original(self, hook, *args, **more)
        if hook == "on_model_save" and len(args) > 2:  # last.pt, epoch from 0, whether it is the final one
            until = told().get("until")
            if until and args[1] + 1 >= until and not args[2]:
                raise SystemExit(PAUSED)
        return result

    return run


def _begin_classic(callbacks: Any) -> None:
    actions = callbacks.get_registered_actions("on_fit_epoch_end") or []
    loggers = next((o for a in actions if hasattr(o := getattr(a["callback"], "__self__", None), "keys")), None)
    held = getattr(loggers, "wandb", None)
    tag({
        "TensorBoard": lambda: getattr(loggers, "tb", None),
        "Weights & Biases": lambda: getattr(held, "wandb_run", None),
    })  # fmt: skip


# -- the trackers


def tag(found: Mapping[str, Callable[[], Any]]) -> None:
    """Tell each tracker that is at work which study, config and seed this run is; what one refuses is told, no error.

    Args:
        found: For each tracker what returns its object, or nothing where it is not at work.
    """
    about = {k: v for k, v in told().items() if k in ("study", "config", "seed")}
    if not about:
        return
    for tracker, object_of in found.items():
        try:
            there = object_of()
            if there is not None:
                TAGGING[tracker](there, about)
        except Exception as exc:  # a tracker's trouble, whatever it is, is no trouble of the training
            announce("%s: this run is not tagged: %s", tracker, first_line(exc) or type(exc).__name__)


def _tag_tensorboard(writer: Any, about: Mapping[str, Any]) -> None:
    """As text, and as hyperparameters, by which its HPARAMS page sorts and filters runs."""
    from torch.utils.tensorboard.summary import hparams

    for key, value in about.items():
        writer.add_text(f"yolo_attn/{key}", str(value))
    names = ("metrics/mAP50-95(B)", "metrics/mAP_0.5:0.95")  # of one host and the other
    for summary in hparams(dict(about), dict.fromkeys(names, 0.0)):
        writer.file_writer.add_summary(summary)
    writer.flush()


def _tag_mlflow(mlflow: Any, about: Mapping[str, Any]) -> None:
    mlflow.set_tags({k: str(v) for k, v in about.items()})


def _tag_wandb(run: Any, about: Mapping[str, Any]) -> None:
    run.config.update({f"yolo_attn/{k}": v for k, v in about.items()}, allow_val_change=True)
    run.tags = (*(run.tags or ()), *(f"{k}:{v}"[:LONGEST] for k, v in about.items()))


TAGGING = {"TensorBoard": _tag_tensorboard, "MLflow": _tag_mlflow, "Weights & Biases": _tag_wandb}
