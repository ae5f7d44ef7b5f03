"""What the parameters of a constructor are called, and what that says: channels, a kernel, a share of the channels."""

from __future__ import annotations

import inspect
import re
from typing import Any

__all__ = [
    "LARGEST_OPTION",
    "LEAST_WIDTH",
    "PLAIN",
    "implausible",
    "is_number",
    "read",
    "sensible",
]

# Names of constructor parameters, in lower case, as papers' code and users' classes write them.
CHANNELS = frozenset(
    """channels channel in_channels in_channel input_channels input_channel num_channels n_channels n_channels_in
    channels_in channel_in channelin channelsin gate_channels gate_channel ch ch_in in_ch c c1 c_in in_c cin inc inp
    dim dims in_dim dim_in input_dim n_dims embed_dim embed_dims hidden_dim d_model in_planes inplanes in_plane inplane
    planes in_places in_features features num_features num_feat num_feats n_feat n_feats nf in_size in_chans in_chs
    in_chn""".split()
)
OUT_CHANNELS = frozenset(
    """c2 out_channels out_channel output_channels output_channel channels_out channel_out channelout n_channels_out
    oup outc out_planes outplanes out_plane planes out_ch ch_out out_c c_out cout out_dim dim_out output_dim
    out_features out_chans out_chs out_size""".split()
)
REPEATS = frozenset({"n"})
# A first parameter of such a name is an option even where its class has no parameter for channels.
_OPTION = re.compile(
    r"kernel|^ks?$|k_size|size|reduc|ratio|^r$|group|^g$|head|^h$|stride|pad|dilat|mode|act|norm|bias|drop|eps|lambda"
    r"|gamma|beta|scale|factor|depth|layer|num|^n_|^n$|rate|type|name|cfg|config|args"
)
_SHARE = re.compile(r"^(reduction|reduction_ratio|ratio|r|groups?|num_groups|n_groups|g|factor|rate)$", re.IGNORECASE)
_KERNEL = re.compile(r"kernel|^ks?$|k_size", re.IGNORECASE)

_WIDEST_KERNEL = 127  # beyond it a number is a width
LEAST_WIDTH = 8  # what the hosts round widths to: a smaller number is none
LARGEST_OPTION = 32  # a number up to here may be an option where it is no width; above, it is a width that is off

PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def read(signature: inspect.Signature) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Read off a constructor what it takes from the graph.

    Returns:
        The words of ``takes``; the parameters that get it, empty where they are the first ones; and whether the
        parameter for channels was guessed, since its name says nothing.
    """
    parameters = list(signature.parameters.values())
    plain = [p for p in parameters if p.kind in PLAIN]
    names = [p.name.lower() for p in plain]
    if names and names[0] in CHANNELS:
        if len(names) < 2 or names[1] not in OUT_CHANNELS:
            return ("channels",), (), False
        return (("c1", "c2", "n") if len(names) > 2 and names[2] in REPEATS else ("c1", "c2")), (), False
    needed = [
        p for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and (p.default is p.empty or (p.kind is p.KEYWORD_ONLY and re.search("channel|planes", p.name)))
    ]  # fmt: skip
    into = next((p.name for p in needed if p.name.lower() in CHANNELS), None)
    if into is not None:
        out = next((p.name for p in needed if p.name.lower() in OUT_CHANNELS and p.name != into), None)
        return (("channels",), (into,), False) if out is None else (("c1", "c2"), (into, out), False)
    first = plain[0] if plain else None
    if first is None or first.default is not first.empty or _OPTION.search(first.name.lower()):
        return (), (), False
    number = first.annotation is first.empty or first.annotation is int or "int" in str(first.annotation)
    return (("channels",), (), True) if number else ((), (), False)


def is_number(value: Any) -> bool:
    """Whether it is an integer; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def sensible(parameter: inspect.Parameter, channels: int) -> Any:
    """Return a value of an option that a message may propose: its default, or a small number."""
    name, default = parameter.name, parameter.default
    if default is not parameter.empty and default is not None:
        share = is_number(default) and default > channels and _SHARE.match(name)
        return max(1, channels // 4) if share else default
    if _KERNEL.search(name):
        return 3
    if re.search(r"head|^h$|reduc|ratio|^r$|group|^g$", name):
        return min(4, channels)
    return max(1, channels // 4) if re.search(r"^[cd]_|dim|chan|planes|feat|mid|hid", name) else 1


def implausible(parameter: inspect.Parameter | None, name: str, value: Any, width: int, *, by_name: bool) -> str:
    """Say why a value is hardly meant for an option, ready to follow the value; an empty string where it may be.

    Args:
        parameter: Of the constructor; None where the constructor takes any keyword.
        name: The option.
        value: What the row gives it.
        width: The channels that arrive, the fewest of them where there are several inputs.
        by_name: Whether the row names the option; then a value is only refused where no module could use it.
    """
    default = getattr(parameter, "default", None)
    values = value if isinstance(value, (list, tuple)) else [value]
    if _SHARE.match(name) and is_number(value) and value > width:
        return f"is above the {width} channels that arrive"
    if _KERNEL.search(name) and any(is_number(v) and v > _WIDEST_KERNEL for v in values):
        return "is no kernel"
    if by_name:
        return ""
    if _SHARE.match(name) and is_number(value) and value == width:
        return "may as well be the width"
    if type(default) is float and 0 < default < 0.01 and isinstance(value, (int, float)) and value >= 1:
        return f"is far from {default:g}"
    if type(default) is bool and is_number(value) and value not in (0, 1):
        return "is neither True nor False"
    return ""
