"""Let a seed reach everything that it should: the order of images, the loader's workers, and augmentation.

Up to 8.4.120 the ultralytics host gives its data loader the same generator whatever the seed, so that order and
augmentation are the same for every seed and the spread over seeds is understated. And what a model draws while it is
built must not move the augmentation of one config against another's.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from ..errors import HostError, UsageError
from ..files import read_source

__all__ = ["check_classic", "check_together", "seed_ultralytics"]

START = 6148914691236517205  # the hosts' own


def seed_ultralytics(seed: int) -> None:
    """Seed the next training in this process: what new layers start from, the loader, augmentation of every epoch.

    The host seeds itself once its trainer is made; a model that starts from weights has been built by then.
    """
    import torch
    from ultralytics.utils.callbacks.base import default_callbacks

    torch.manual_seed(seed)  # of every device
    _seed_augmentation(seed)

    def loaders_are_there(trainer: Any) -> None:
        loader = trainer.train_loader
        generator = getattr(loader, "generator", None)
        if generator is None or not hasattr(loader, "reset"):
            raise HostError("this ultralytics has a data loader that cannot be seeded; use 8.4.130 or later")
        generator.manual_seed(START + seed + 1_000_003 * int(trainer.start_epoch))  # a rung draws on where the last one ended
        loader.reset()  # its workers have begun with what it was before

    def epoch_begins(trainer: Any) -> None:
        _seed_augmentation(seed * 100_003 + int(trainer.epoch) + 1)

    default_callbacks["on_pretrain_routine_end"].append(loaders_are_there)
    default_callbacks["on_train_epoch_start"].append(epoch_begins)


def _seed_augmentation(number: int) -> None:
    import numpy as np

    random.seed(number)
    np.random.seed(number % 2**32)


def check_classic(host: Path, workers: int) -> None:
    """Check that a seed reaches the training of a classic host.

    Args:
        host: Its folder.
        workers: Of the data loader.

    Raises:
        HostError: Its `train.py` takes no seed.
        UsageError: Its loader's workers would draw the same for every seed.
    """
    if "--seed" not in read_source(host / "train.py"):
        raise HostError(f"{host}: its train.py takes no --seed, and without seeds there is nothing to compare. Use v7.0")
    files = [host / "utils" / n for n in ("dataloaders.py", "datasets.py")]
    text = "".join(read_source(f) for f in files if f.is_file())
    if workers > 0 and not re.search(r"manual_seed\([^)\n]*\bseed\b", text.partition("def create_dataloader")[2]):
        raise UsageError(
            f"{host}: the seed does not reach the workers of this YOLOv5's data loader, which would draw the same for every "
            f"seed: give --workers 0, or use YOLOv5 of 2023 or later (or the yolov5 package)"
        )


def check_together(host: str) -> None:
    """Check that a seed reaches one training on several GPUs, whose workers are processes of the host's own.

    A classic host is checked by :func:`check_classic` in any case.

    Raises:
        UsageError: This version of the host seeds their loaders alike for every seed.
    """
    if host != "ultralytics":
        return
    from ultralytics.data import build

    if not re.search(r"manual_seed\([^\n]*\bseed\b", read_source(Path(build.__file__))):
        raise UsageError(
            "the seed does not reach the workers of one training on several GPUs in this ultralytics: give each GPU a run of "
            "its own (0,1 and not 0+1), or use ultralytics 8.4.130 or later"
        )
