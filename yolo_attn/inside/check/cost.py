"""What a module costs, and how far a fresh one shrinks the features."""

from __future__ import annotations

import time
from typing import Any

from .subject import Subject, each, quiet
from .verdict import PASS, Doubt, Finding

__all__ = ["cost", "shrinkage"]

CHANNELS, SIDE = 256, 20  # as in the table of modules
ROUNDS = 15


def cost(s: Subject) -> Finding:
    """Parameters, MFLOPs and time beside SE of the same width, at 256 channels and 20 x 20 where it takes them."""
    import torch

    from ...hook.flops import count
    from ...registry.registry import get_module

    with quiet(), torch.no_grad():
        channels, size = CHANNELS, (SIDE, SIDE)
        try:
            m = s.build(channels).eval()
            x = s.maps(size, 1, channels)
            m(x)
        except MemoryError:
            raise
        except Exception:  # said by other checks
            channels, size = s.channels, s.size
            m, x = s.build(channels).eval(), s.maps(size, 1, channels)
        flops = count(m, x) / 1e6
        se = get_module("SEAttention")(channels).to(s.device).eval()
        y = x[0] if s.inputs > 1 else x
        ratio, mine = _times(s, m, x, se, y)
    numbers = {
        "channels": channels, "size": list(size), "parameters": sum(p.numel() for p in m.parameters()),
        "mflops": round(flops, 3), "ms": round(mine, 3), "time_of_se": round(ratio, 2),
    }  # fmt: skip
    said = (
        f"{numbers['parameters']:,} parameters, {flops:,.3f} MFLOPs, {mine:.2f} ms, {ratio:.1f} times SE "
        f"({channels} channels, {size[0]} x {size[1]}, {s.device})"
    )
    return Finding("cost", PASS, said, numbers=numbers)


def _times(s: Subject, m: Any, x: Any, se: Any, y: Any) -> tuple[float, float]:
    """Median time in ms, and the median of the ratios to SE, run by run in turn."""
    import statistics

    def once(f: Any, v: Any) -> float:
        start = time.perf_counter()
        f(v)
        if s.device != "cpu":
            import torch

            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3

    for _ in range(3):
        once(m, x), once(se, y)
    pairs = [(once(m, x), once(se, y)) for _ in range(ROUNDS)]
    return statistics.median(a / b for a, b in pairs), statistics.median(a for a, _ in pairs)


def shrinkage(s: Subject) -> Finding:
    """The root mean square of a fresh module's output over that of its input, on maps as SiLU leaves them."""
    import torch

    with quiet(), torch.no_grad():
        m = s.build(s.channels).eval()
        x = s.maps(s.size, 4, s.channels)
        given = [torch.nn.functional.silu(v) for v in each(x)]
        y, first = m(given if s.inputs > 1 else given[0]), given[0]
        ratio = float(y.square().mean().sqrt() / first.square().mean().sqrt())
    four = ratio**4
    said = f"a fresh one gives {ratio:.2f} times the features; four in a row {four:.3g} times"
    numbers = {"ratio": round(ratio, 4)}
    if not 0.1 <= ratio <= 10 and not s.binding.is_block:  # a block stands where a convolution would, and is trained as one
        raise Doubt(
            f"{said}: pretrained features do not come through",
            "start near the identity: x * 2 * sigmoid(score) with a last layer of zeros, or x + w * y with w = 0",
            s.sources.returns(s.cls),
        )
    return Finding("shrinkage", PASS, said, numbers=numbers)


