"""Sizes, channels, memory formats: what arrives in a detector, and what may leave."""

from __future__ import annotations

from typing import Any

from ...errors import first_line
from .repeat import far
from .subject import Subject, each, mapped, quiet
from .verdict import Doubt, Fault

__all__ = ["input_kept", "memory_format", "odd_sizes", "one_image", "one_pixel", "runs", "widths"]

ODD = ((13, 11), (9, 15), (5, 4), (1, 5), (3, 1))


def runs(s: Subject) -> str:
    """One forward and backward pass at the working size: output shape, type and channels."""
    size = s.size
    _step(s, s.channels, size, batch=2, train=False)
    return f"(2, {s.channels}, {size[0]}, {size[1]}) gives (2, {s.out_channels(s.channels)}, {size[0]}, {size[1]})"


def odd_sizes(s: Subject) -> str:
    """Any height and width, in training and in eval mode: P3 to P5 of rectangular images."""
    for train, sizes in ((True, ODD), (False, (ODD[0], ODD[-1]))):
        for size in sizes:
            _step(s, s.small, size, batch=2, train=train)
    return ", ".join(f"{h} x {w}" for h, w in ODD)


def one_pixel(s: Subject) -> str:
    """A map of one position: P5 of a small image."""
    for train in (True, False):
        _step(s, s.small, (1, 1), batch=2, train=train)
    return "1 x 1"


def one_image(s: Subject) -> str:
    """A batch of one in training, the hosts' first forward pass; in eval mode, an image alone gives what it gives in a batch."""
    _step(s, s.small, s.size, batch=1, train=True)
    try:
        _step(s, s.small, (1, 1), batch=1, train=True)
    except Fault as exc:
        if "more than 1 value per channel" not in exc.said:
            raise
        raise Doubt(f"{exc.said}; so does a convolution of the host, whose maps are larger", exc.remedy, exc.line) from exc
    _alone(s)
    return f"1 image of {s.size[0]} x {s.size[1]} and of 1 x 1; equal alone and in a batch"


def _alone(s: Subject) -> None:
    """An image's result does not depend on the images beside it; in training it may, as with batch normalization."""
    import torch

    with quiet(), torch.no_grad():
        m = s.build(stir=True).eval()
        one = s.maps(batch=1)
        both = [torch.cat((a, 5 * b + 1)) for a, b in zip(each(one), each(s.maps(batch=1, seed=3)))]
        alone, again = m(one).clone(), m(one)
        beside = m(both if s.inputs > 1 else both[0])[:1]
    if torch.equal(alone, again) and float((alone - beside).abs().max()) > 1e-3 * float(alone.abs().max()):
        raise Fault(
            f"in eval mode, an image gives another result with another one beside it: {far(alone, beside)}",
            "nothing is to mix images: x.mean((2, 3)) and not x.mean(), softmax over dimension 1 or later, no reshape across the batch",
            s.sources.method(s.cls, "forward"),
        )


def widths(s: Subject) -> str:
    """The widths of detectors: 16 to 1280 channels, and those that no power of two divides."""
    import torch

    if "channels" not in s.binding.takes and "c1" not in s.binding.takes:
        return "takes no number of channels"
    refused: dict[int, Exception] = {}
    for channels in (16, 24, 72, 80, 320):
        try:
            with quiet(), torch.no_grad():
                m = s.build(channels).eval()
        except MemoryError:
            raise
        except (ValueError, AssertionError) as exc:  # it says that it does not take this width
            refused[channels] = exc
            continue
        except Exception as exc:  # a constructor can raise anything
            raise s.fault(exc, f"cannot be built with {channels} channels", _SHARES) from exc
        empty = next((n for n, p in m.named_parameters() if p.numel() == 0), "")
        if empty:
            raise Fault(f"with {channels} channels, {empty} has no values: a layer of no channels", _SHARES, s.sources.method(s.cls, "__init__"))
        try:
            with quiet(), torch.no_grad():
                m(s.maps(s.size, 1, channels))
        except MemoryError:
            raise
        except Exception as exc:  # a module can raise anything
            raise s.fault(exc, f"with {channels} channels", _SHARES) from exc
    if refused:
        first = next(iter(refused.values()))
        said = f"refuses {', '.join(map(str, refused))} channels: {type(first).__name__}: {first_line(first)[:200]}"
        raise Doubt(said, _SHARES, s.sources.of_error(first))
    return "16 to 320 channels"


_SHARES = "widths differ with the scale of a detector: max(1, channels // reduction), and groups by math.gcd(channels, groups)"


def memory_format(s: Subject) -> str:
    """Channels-last and other non-contiguous maps give the same as contiguous ones."""
    import torch

    m = s.build(stir=True).eval()
    with quiet(), torch.no_grad():
        x = s.maps()
        want = m(x)
        for name, change in (
            ("channels-last", lambda v: v.to(memory_format=torch.channels_last)),
            ("sliced", lambda v: torch.cat((v, v), 1)[:, : v.shape[1]]),  # as C2f's chunk leaves it
            ("transposed", lambda v: v.transpose(2, 3).contiguous().transpose(2, 3)),
        ):
            try:
                got = m(mapped(x, change))
            except Exception as exc:  # a module can raise anything
                raise s.fault(exc, f"on a {name} map", "write reshape in place of view") from exc
            if not torch.allclose(got, want, rtol=1e-4, atol=1e-5):
                raise Fault(
                    f"a {name} map gives another result, by up to {float((got - want).abs().max()):.3g}",
                    "use no .stride(), .data_ptr() or as_strided; reshape in place of view",
                    s.sources.call(s.cls, ("as_strided", "stride", "set_", "resize_")) or s.sources.method(s.cls, "forward"),
                )
    return "channels-last and non-contiguous give the same"


def input_kept(s: Subject) -> str:
    """The input, which other rows read as well, is not written to; the hosts set every activation to in place."""
    import torch

    from .watch import Watch

    if s.form is not None and s.form.copy:
        return "gets a copy of its input, by its entry (copy: true)"
    for inplace in (False, True):
        m = s.build(stir=True).eval()
        plain: Any = None
        x = s.maps()
        with quiet(), torch.no_grad():
            if inplace:
                plain = m(mapped(x, torch.clone))
                activations = [p for p in m.modules() if isinstance(getattr(p, "inplace", None), bool)]
                for part in activations:
                    part.inplace = True
                if not activations:
                    break
            given = [v._version for v in each(x)]
            with _Versions(s, each(x)) as versions, Watch(s.sources):
                y = m(x)
            changed = [v._version for v in each(x)] != given
        if changed:
            why = "its activations in place, as the hosts set them, " if inplace else ""
            raise Fault(
                f"{why}writes to its input, which other rows may read",
                "write to a new tensor (y = x * g); an activation comes behind a layer, never on x itself; or 'copy: true' in its entry",
                versions.line or s.sources.method(s.cls, "forward"),
            )
        if inplace and not torch.equal(y, plain):
            raise Fault(
                "gives another result once activations work in place, as the hosts set them",
                "use a tensor only once it has passed its activation: z = act(z) and not z * act(z)",
                s.sources.method(s.cls, "forward"),
            )
    return "not written to, activations in place included"


class _Versions:
    """Finds the line after which an input's version moved."""

    line: Any = None

    def __init__(self, s: Subject, maps: list[Any]) -> None:
        from torch.utils._python_dispatch import TorchDispatchMode

        outer = self

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                out = func(*args, **(kwargs or {}))
                writes = any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments)
                first = next((a for a in args if hasattr(a, "untyped_storage")), None)
                if writes and outer.line is None and first is not None:
                    home = first.untyped_storage()._cdata
                    if home in [v.untyped_storage()._cdata for v in maps]:
                        outer.line = s.sources.of_frames()
                return out

        self.mode = Mode()

    def __enter__(self) -> _Versions:
        self.mode.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.mode.__exit__(*exc)


def _step(s: Subject, channels: int, size: tuple[int, int], *, batch: int, train: bool) -> None:
    """A forward and a backward pass; raise a fault where shape, type or values are wrong."""
    import torch

    with quiet():
        try:
            m = s.build(channels).train(train)
        except Exception as exc:  # a constructor can raise anything
            raise s.fault(exc, f"cannot be built with {channels} channels") from exc
        x = mapped(s.maps(size, batch, channels), lambda v: v.requires_grad_())
        shown = f"({batch}, {channels}, {size[0]}, {size[1]})"
        mode = "training" if train else "eval mode"
        try:
            y = m(x)
        except Exception as exc:  # a module can raise anything
            raise s.fault(exc, f"fails on {shown} in {mode}") from exc
        where = s.sources.returns(s.cls)
        if not isinstance(y, torch.Tensor) or y.dim() != 4:
            what = f"a {type(y).__name__}" if not isinstance(y, torch.Tensor) else str(tuple(y.shape))
            raise Fault(
                f"{shown} gives {what}, where a layer gives one map", "return the map alone; or 'output: 0' in its entry", where
            )
        promised = s.out_channels(channels)
        if y.shape[:2] != (batch, promised):
            raise Fault(
                f"{shown} gives {tuple(y.shape)}, where the next row is promised {promised} channels",
                f"return {promised} channels; or state 'out_channels: {_part(int(y.shape[1]), channels)}' in its entry",
                where,
            )
        if y.shape[2:] != size and not s.binding.is_block:
            raise Fault(f"{shown} gives {tuple(y.shape)}: height and width change", _KEEP, where)
        if y.dtype != torch.float32:
            raise Fault(f"fp32 comes in and {y.dtype} goes out".replace("torch.", ""), "return y.to(x.dtype)", where)
        if not y.isfinite().all():
            raise Fault(f"{shown} gives numbers that are not finite in {mode}", "bound the divisor, + eps under a root", where)
        if not y.requires_grad:
            raise Fault("no gradient passes", "no .detach(), .data or torch.no_grad() between input and output", where)
        try:
            y.square().sum().backward()
        except Exception as exc:  # e.g. a saved tensor was changed in place
            raise s.fault(exc, f"the backward pass fails on {shown}") from exc
        grads = [v.grad for v in each(x)] + [p.grad for p in m.parameters()]
        if any(g is not None and not g.isfinite().all() for g in grads):
            raise Fault(
                f"gradients on {shown} are not finite in {mode}",
                "add eps under a root and to a divisor; the variance of one value is NaN: var(..., correction=0)",
                s.sources.call(s.cls, ("sqrt", "std", "var", "log", "norm", "rsqrt", "pow")) or where,
            )


_KEEP = "keep height and width: padding = kernel // 2 * dilation, stride 1; the neck's Concat needs equal sizes"


def _part(gives: int, arrives: int) -> Any:
    if gives < arrives and arrives % gives == 0:
        return f"c1/{arrives // gives}"
    return f"c1*{gives // arrives}" if gives > arrives and gives % arrives == 0 else gives


