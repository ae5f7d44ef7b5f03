"""What the names of a constructor's parameters mean: channels, a kernel size, a divisor of the channels."""

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

# Names of constructor parameters, in lower case, as papers' code and users' classes spell them.
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
# A first parameter with such a name is an option, never the channels.
_OPTION = re.compile(
    r"kernel|^ks?$|k_size|size|reduc|ratio|^r$|group|^g$|head|^h$|stride|pad|dilat|mode|act|norm|bias|drop|eps|lambda"
    r"|gamma|beta|scale|factor|depth|layer|num|^n_|^n$|rate|type|name|cfg|config|args"
)
_SHARE = re.compile(
    r"^(reduction|reduction_ratio|ratio|r|groups?|num_groups|n_groups|g|factor|rate|heads?|num_heads|n_heads)$", re.IGNORECASE
)
_KERNEL = re.compile(r"kernel|^ks?$|k_size", re.IGNORECASE)

_WIDEST_KERNEL = 127  # a larger number is a width
LEAST_WIDTH = 8  # the hosts round widths to multiples of it: a smaller number is not a width
LARGEST_OPTION = 32  # up to here, a number that is not the width may be an option; above, it is a wrong width

PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def read(signature: inspect.Signature) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return what a constructor takes from the graph.

    Returns:
        The words of ``takes``; the parameters that receive it, empty where they are the first ones; and whether the
        channel parameter was guessed, since its name does not tell.
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
    """Whether a value is an integer; True and False do not count."""
    return isinstance(value, int) and not isinstance(value, bool)


def sensible(parameter: inspect.Parameter, channels: int) -> Any:
    """Return a value of an option for a message to suggest: its default, or a small number."""
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
    """Return why a value is implausible for an option, as a phrase to follow the value; empty if it is plausible.

    Args:
        parameter: The parameter of the constructor; None if it takes any keyword.
        name: The option.
        value: Its value in the row.
        width: Input channels, the fewest of several inputs.
        by_name: Whether the row gives the option by name; then only impossible values are refused.
    """
    default = getattr(parameter, "default", None)
    values = value if isinstance(value, (list, tuple)) else [value]
    if _SHARE.match(name) and is_number(value) and value > width:
        return f"is above the {width} channels that arrive"
    if _KERNEL.search(name) and any(is_number(v) and v > _WIDEST_KERNEL for v in values):
        return "is not a kernel size"
    if by_name:
        return ""
    if _SHARE.match(name) and is_number(value) and value == width:
        return "could also be the width"
    if type(default) is float and 0 < default < 0.01 and isinstance(value, (int, float)) and value >= 1:
        return f"is far from {default:g}"
    if type(default) is bool and is_number(value) and value not in (0, 1):
        return "is neither True nor False"
    return ""
