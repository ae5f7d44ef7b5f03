"""Where a command lets its runs train, from its options: this machine's devices, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import UsageError
from ..training.checks import check_device
from ..words import option
from . import jobs as working
from . import seeding
from .ray_runs import Ray, connected

__all__ = ["Ray", "as_cluster", "check_places", "places"]


@contextlib.contextmanager
def places(host: str, device: str = "", jobs: int | None = None, ray: Ray | None = None) -> Iterator[list[working.Place]]:
    """Yield where runs train.

    Args:
        host: As for :func:`yolo_attn.compare`, like the others.
        device: Devices of this machine.
        jobs: Runs at a time.
        ray: A cluster; None for this machine's devices.

    Raises:
        UsageError: Devices that no run can have, or that this machine does not have.
        YoloAttnError: No cluster.
    """
    check_places(device, jobs, ray)
    if any("," in d for d in working.devices(device)):
        seeding.check_together(host)
    if ray is None:
        for each in working.devices(device):  # or every run would find out for itself
            check_device(each)
        yield working.places(device, jobs)
        return
    with connected(ray, jobs) as found:
        yield found


def check_places(device: str, jobs: int | None, ray: Ray | None) -> None:
    """Check where to train, as far as that needs neither host nor cluster.

    Raises:
        UsageError: Devices that no run can have.
    """
    if ray is not None and device:
        raise UsageError(f"{option('device', device)}: in a cluster Ray hands the devices out; omit it")
    if ray is None:
        working.places(device, jobs)


def as_cluster(given: str | bool | Ray | None) -> Ray | None:
    """Return the cluster that an argument ``ray`` means; None for this machine's devices."""
    if given is None or given is False:
        return None
    return given if isinstance(given, Ray) else Ray("" if given is True else given)
