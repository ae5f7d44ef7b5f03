"""Time and memory of each attention module, forward and backward, compared with its counterpart in timm.

    python benchmarks/modules.py                          # every module, on CPU and, if available, GPU
    python benchmarks/modules.py --modules SE ECA CBAM    # some of them
    python benchmarks/modules.py --twins                  # only those with a counterpart in timm
    python benchmarks/modules.py --json result.json

Both run in turns, so that other load on the machine slows both alike. Times are medians in milliseconds; the ratio is
the median of the ratios of consecutive runs. Memory, in MiB: on a GPU, the peak above module and input; on a CPU, what
the forward pass keeps for the backward pass, without input and parameters.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo_attn import list_modules
from yolo_attn.errors import UnknownModuleError
from yolo_attn.registry.registry import get_entry

MIB = 2**20


def twins() -> dict[str, tuple[dict[str, Any], Callable[[int], nn.Module]]]:
    """Return name -> (options that make both equal, builder of timm's); tests check that they are equal."""
    import timm.layers as tl
    from timm.layers.cbam import CbamModule
    from timm.layers.coord_attn import CoordAttn, EfficientLocalAttn

    def group_norm(channels: int, **_: Any) -> nn.Module:
        return nn.GroupNorm(16, channels)

    return {
        "SEAttention": ({}, lambda c: tl.SEModule(c, rd_ratio=1 / 16, rd_divisor=1, bias=False)),
        "ECA": ({}, tl.EcaModule),
        "CBAM": ({"norm": True}, CbamModule),
        "CoordAtt": ({}, lambda c: CoordAttn(c, rd_channels=max(8, c // 32), bias=True)),
        "GC": ({}, lambda c: tl.GlobalContext(c, fuse_add=True, fuse_scale=False, rd_ratio=1 / 16)),
        "eSE": ({}, lambda c: tl.EffectiveSEModule(c)),
        "GE": ({"form": "theta-", "extent": 4}, lambda c: tl.GatherExcite(c, extent=4, use_mlp=False)),
        "ELA": ({}, lambda c: EfficientLocalAttn(c, act_layer=nn.Identity, norm_layer=group_norm)),  # type: ignore[arg-type]
        "SK": (
            {"groups": 32},
            lambda c: tl.SelectiveKernel(
                c, kernel_size=[3, 5], split_input=False, groups=32, rd_channels=max(32, c // 16)
            ),
        ),
        "NonLocal": ({}, lambda c: tl.NonLocalAttn(c, use_scale=False, rd_ratio=1 / 2)),
    }


def build(name: str, channels: int, **options: Any) -> nn.Module:
    """Build a registered module with `channels` channels."""
    entry = get_entry(name)
    return entry.cls(*([channels] if entry.binding.takes else []), **options)


def step(m: nn.Module, x: Tensor, weight: Tensor) -> None:
    """Run forward and backward once, with gradients of input and parameters."""
    x.grad = None
    m.zero_grad(set_to_none=True)
    m(x).backward(weight)


def timed(m: nn.Module, x: Tensor, weight: Tensor) -> float:
    """Return the time of one step in milliseconds."""
    if x.is_cuda:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step(m, x, weight)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))
    begin_s = time.perf_counter()
    step(m, x, weight)
    return (time.perf_counter() - begin_s) * 1e3


def memory(m: nn.Module, x: Tensor, weight: Tensor) -> float:
    """Return memory in MiB: the peak of a step on a GPU, what the forward pass keeps on a CPU."""
    if x.is_cuda:
        step(m, x, weight)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(m, x, weight)
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    own = {t.untyped_storage().data_ptr() for t in (x, *m.parameters(), *m.buffers())}
    kept: dict[int, Tensor] = {}  # holds the tensors, lest a freed address be counted as another's

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        m(x)
    return sum(t.untyped_storage().nbytes() for t in kept.values()) / MIB


def measure(name: str, shape: tuple[int, ...], device: str, repeats: int, seconds: float) -> dict[str, Any]:
    """Return one line of the table, from `repeats` runs or as many as fit into `seconds`, but at least 7."""
    options, other = twins().get(name, ({}, None))
    torch.manual_seed(0)
    pair = [build(name, shape[1], **options)] + ([other(shape[1])] if other else [])
    pair = [m.to(device).train() for m in pair]
    x = torch.randn(shape, device=device, requires_grad=True)
    weight = torch.randn(shape, device=device)
    for _ in range(3):
        for m in pair:
            step(m, x, weight)
    times: list[list[float]] = [[] for _ in pair]
    begin = time.perf_counter()
    for r in range(repeats):
        if r >= 7 and time.perf_counter() - begin > seconds:
            break
        order = range(len(pair)) if r % 2 else reversed(range(len(pair)))
        for k in order:
            times[k].append(timed(pair[k], x, weight))
    row: dict[str, Any] = {"module": name, "device": device, "shape": list(shape), "repeats": len(times[0])}
    row["ms"] = statistics.median(times[0])
    row["mib"] = memory(pair[0], x, weight)
    if other:
        row["twin_ms"] = statistics.median(times[1])
        row["ratio"] = statistics.median(a / b for a, b in zip(*times))
        row["twin_mib"] = memory(pair[1], x, weight)
    return row


def show(row: dict[str, Any]) -> str:
    """Format a line of the table."""
    text = f"{row['module']:34}{row['ms']:10.3f}{row['mib']:10.1f}"
    if "ratio" in row:
        text += f"{row['twin_ms']:10.3f}{row['twin_mib']:10.1f}{row['ratio']:8.2f}"
    return text


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", help="names or aliases (default: all attention modules)")
    parser.add_argument("--twins", action="store_true", help="only modules that have a counterpart in timm")
    parser.add_argument("--shape", nargs=4, type=int, default=(8, 256, 40, 40), metavar=("B", "C", "H", "W"))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--repeats", type=int, default=60, help="runs of each (default 60); fewer than 40 are too noisy on a busy CPU")
    parser.add_argument("--seconds", type=float, default=30, help="time limit per module (default 30)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        names = [get_entry(n).name for n in args.modules or list_modules()]
    except UnknownModuleError as exc:
        parser.error(str(exc))
    names = [n for n in names if get_entry(n).kind in ("channel", "spatial", "both")]
    if args.twins:
        names = [n for n in names if n in twins()]
    devices = {"auto": ["cpu"] + ["cuda"] * torch.cuda.is_available()}.get(args.device, [args.device])
    rows = []
    for device in devices:
        where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
        print(f"\n{device} ({where}), torch {torch.__version__}, Python {platform.python_version()}, "
              f"(B, C, H, W) = {tuple(args.shape)}, up to {args.repeats} turns")  # fmt: skip
        print(f"{'':34}{'ms':>10}{'MiB':>10}{'timm ms':>10}{'MiB':>10}{'ratio':>8}")
        for name in names:
            rows.append(measure(name, tuple(args.shape), device, args.repeats, args.seconds))
            print(show(rows[-1]), flush=True)
    slow = [r for r in rows if r.get("ratio", 0) > 1.05]
    print(f"\n{sum('ratio' in r for r in rows)} compared with timm, slower by more than 5 %: "
          + (", ".join(f"{r['module']} on {r['device']} {r['ratio']:.2f}" for r in slow) or "none"))  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
