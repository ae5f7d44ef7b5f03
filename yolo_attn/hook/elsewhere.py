"""Module names of the other host, or of projects that are not hosts of the kit.

For messages: the remedy for such an unknown name is another host or another kind of row, and not another spelling.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import ModuleType

from ..registry import registry, spellings

__all__ = ["CLASSIC", "PROJECTS", "ULTRALYTICS", "advice", "near", "project", "whose"]

# What each host's parser builds; its newest version may know more.
ULTRALYTICS = frozenset(
    """A2C2f AConv ADown AIFI Bottleneck BottleneckCSP C1 C2 C2PSA C2f C2fAttn C2fCIB C2fPSA C3 C3Ghost C3TR C3k2 C3x
    CBFuse CBLinear Classify Concat Conv Conv2 ConvTranspose DWConv DWConvTranspose2d Detect ELAN1 Focus GhostBottleneck
    GhostConv HGBlock HGStem ImagePoolingAttn Index OBB PSA Pose RTDETRDecoder RepC3 RepConv RepNCSPELAN4 RepVGGDW
    ResNetLayer SCDown SPP SPPELAN SPPF Segment TorchVision WorldDetect YOLOEDetect YOLOESegment v10Detect""".split()
)
CLASSIC = frozenset(
    """Bottleneck BottleneckCSP C3 C3Ghost C3SPP C3TR C3x Classify Concat Contract Conv CrossConv DWConv
    DWConvTranspose2d Detect Expand Focus GhostBottleneck GhostConv MixConv2d SPP SPPF Segment""".split()
)
HOSTS = {"the ultralytics host": ULTRALYTICS, "classic YOLOv5": CLASSIC}

# Projects that are no host of the kit, by the names that they alone give. All of them are classes of their own.
PROJECTS = {
    "YOLOv7 (github.com/WongKinYiu/yolov7)": """IDetect IAuxDetect IKeypoint IBin ISegment IPose IOBB MP SP ReOrg SPPCSPC
        SPPFCSPC GhostSPPCSPC DownC Chuncat Foldcut Shortcut RepConv_OREPA RepBottleneck RepRes RepX ResX ResCSPA ResCSPB
        ResCSPC RepResCSPC Stem GhostStem BottleneckCSPA BottleneckCSPB BottleneckCSPC ImplicitA ImplicitM ST2CSPA ST2CSPB
        STCSPA STCSPB STCSPC""",
    "YOLOv6 (github.com/meituan/YOLOv6)": """RepBlock SimConv SimSPPF SimCSPSPPF CSPSPPF RepVGGBlock BepC3 BiFusion
        EffiDeHead""",
    "YOLOAir (github.com/iscyy/yoloair)": """DetectX EffDecHead Decoupled_Detect ASFF_Detect CNeB HorBlock C3HB C3RFEM
        CSPResNet CSPResNet_CBS ConvNextBlock""",
    "Slim-neck (github.com/AlanLi1997/slim-neck-by-gsconv)": "GSConv VoVGSCSP VoVGSCSPC GSBottleneck",
}
_OWNERS = {name: project for project, names in PROJECTS.items() for name in names.split()}
# Heads of these are one of the hosts' with something added; what comes nearest to them.
_NEAREST = {"IDetect": "Detect, [nc, anchors]", "IAuxDetect": "Detect, [nc, anchors]", "ISegment": "Segment",
            "IPose": "Pose", "IOBB": "OBB", "DetectX": "Detect", "Decoupled_Detect": "Detect"}  # fmt: skip


def project(name: str) -> str:
    """Return the project that is known to have a module of this name, or an empty string."""
    return _OWNERS.get(name, "")


def whose(name: str, parser: ModuleType | None = None) -> str:
    """Return which host or project has a module of this name, as a sentence to append; empty if none is known.

    Args:
        name: The third column of a row.
        parser: The module of the host's parser that does not know it; None asks for both hosts.
    """
    here = "" if parser is None else _host(parser)
    having = [host for host, names in HOSTS.items() if name in names and host != here]
    if having:
        at = f", not of {here}" if here else ""
        use = f": use that host for this model{' (--host ultralytics)' if 'classic' in here else ''}" if here else ""
        return f" {name} is a module of {' and '.join(having)}{at}{use}."
    if name in _OWNERS:
        nearest = f"; what comes nearest here is {_NEAREST[name]}" if name in _NEAREST else ""
        return f" {name} is a module of {_OWNERS[name]}, whose code no host here has{nearest}."
    return ""


def _host(parser: ModuleType) -> str:
    return "classic YOLOv5" if parser.__name__.endswith("models.yolo") else "the ultralytics host"


def near(name: str, known: Iterable[str]) -> list[str]:
    """Return the nearest known names, at most three; none if they would not help.

    What is joined of a block's name and one that nobody knows, such as ``C2f_Nothing``, is near the same block with a
    module of a similar name, and never near another block with other attention.

    Args:
        name: The unknown one.
        known: The others.
    """
    folded = {k.lower(): k for k in known if k != name}
    parts = _joined(name)
    if parts is not None:
        inner = difflib.get_close_matches(parts[1].lower(), folded, n=3, cutoff=0.7)
        joined = [name.replace(parts[1], folded[i]) for i in inner]
        return [j for j in joined if j != name and registry.find(j) is not None]
    return [folded[k] for k in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)]


def _joined(name: str) -> tuple[str, str] | None:
    """The kit's block and the module of a name that joins both; None for other names."""
    for block, module, _ in spellings.split(name):
        if "_" in name or block not in ("ConvAttention", "BottleneckAttention"):  # not ConvNeXt
            return block, module
    return None


def advice(name: str, known: Iterable[str], parser: ModuleType | None = None) -> str:
    """Return where an unknown name belongs, or which names are near it, as a sentence to append."""
    there = whose(name, parser)
    if there:
        return there
    names, parts = near(name, known), _joined(name)
    if names:
        return f" Did you mean {' or '.join(map(repr, names))}?"
    if parts is not None:
        return f" {parts[0]} with {{module: NAME}} has attention inside, but no module is called '{parts[1]}'."
    return ""
