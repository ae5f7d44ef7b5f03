"""Which layers lose most in RKNN's int8: each in turn is in int8 in the simulator, and all others are in fp16."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...errors import FileError
from ...files import read_text, write_text
from ...runtime.engines.network import Options, one_file
from ...runtime.engines.rknn import RANGES, open_network, simulated
from ..graph import within
from .alone import Boxes, layers, write_losses
from .base import Job
from .host import STEM

__all__ = ["losses", "rounded"]


def losses(job: Job, work: Path) -> Path:
    """Write ``losses.json``: of each layer that is in int8, what it alone loses, the greatest first.

    The toolkit's own `accuracy_analysis` tells this of maps, and takes convolution and activation apart, which the
    processor computes at once: it counts a rounding between them that there is not.

    ``error`` is the mean of 1 - IoU over the detections of the fp16 network, with the box of their class that comes
    nearest; 1 where there is none. The head counts as its branches.

    Args:
        job: The conversion; `pictures` and `proved` are set.
        work: The folder that the int8 network was made in.
    """
    import onnx
    import yaml

    assert job.proved is not None
    parts = [work / f"{STEM}{ending}" for ending in RANGES]
    told: dict[str, Any] = yaml.safe_load(read_text(parts[-1], FileError))
    chosen = told["custom_quantize_layers"]
    chip = re.sub(r".*-", "", one_file(job.proved, "*.rknn", "RKNN").stem)
    maps = rounded(onnx.load(str(parts[0])), told)
    boxes = Boxes(job, open_network(job.proved, Options(threads=1)).run, job.source.layout or "")
    choice, found = Path("alone.cfg").absolute(), []
    for path in layers(job.source.model):
        own = {name for name, node in maps.items() if within(node, [path])}
        if not own:
            continue
        others = dict.fromkeys((name for name in maps if name not in own), "float16")
        write_text(choice, yaml.safe_dump({**told, "custom_quantize_layers": {**chosen, **others}}, sort_keys=False), durable=False)
        error = boxes.error(simulated(job.proved, [*parts[:2], choice], chip))
        found.append({"layer": path, "type": type(job.source.model.get_submodule(path)).__name__, "error": error})
    return write_losses(found)


def rounded(network: Any, told: dict[str, Any]) -> dict[str, str]:
    """Return the maps of a compiler's network that are in int8, of each the name of the node that makes it.

    Args:
        network: The graph.
        told: What the compiler is told of it: ``custom_quantize_layers`` and ``quantize_parameters``.
    """
    known, kept = told["quantize_parameters"], told["custom_quantize_layers"]
    made = {name: node.name for node in network.graph.node for name in node.output}
    return {name: node for name, node in made.items() if known.get(name, {}).get("dtype") == "int8" and name not in kept}
