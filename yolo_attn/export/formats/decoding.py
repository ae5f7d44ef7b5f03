"""Which operators of a converted network decode its head's output: what every int8 of the kit's own leaves in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CONVOLUTIONS", "Operator", "decoding"]

# as LiteRT and NCNN call them
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "Convolution", "ConvolutionDepthWise", "InnerProduct")
SOFTMAX = ("SOFTMAX", "Softmax")


@dataclass(frozen=True)
class Operator:
    """An operator of a file: its kind, its name as the runtime knows it, its tensors, and its weights' first side."""

    kind: str
    scope: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    filters: int


def decoding(operators: Sequence[Operator]) -> set[int]:
    """Return the numbers of the operators that decode the head's output, and of its last convolutions.

    They are found backwards from what no operator takes. The convolution of the distribution focal loss (Generalized
    Focal Loss, arXiv:2006.04388), the expectation behind a softmax, is a part of the decoding.
    """
    made = {tensor: k for k, op in enumerate(operators) for tensor in op.outputs}
    taken = {tensor for op in operators for tensor in op.inputs}
    todo = [k for k, op in enumerate(operators) if not taken.intersection(op.outputs)]
    found: set[int] = set()
    while todo:
        k = todo.pop()
        if k in found:
            continue
        found.add(k)
        before = [made[tensor] for tensor in operators[k].inputs if tensor in made]
        expectation = operators[k].filters == 1 and any(operators[b].kind in SOFTMAX for b in before)
        if operators[k].kind not in CONVOLUTIONS or expectation:
            todo += before
    return found
