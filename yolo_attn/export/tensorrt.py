"""Build TensorRT engines from verified ONNX files; without TensorRT, print the command that does."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

from ..errors import ExportError, UsageError
from ..files import write_bytes

__all__ = ["OPERATORS", "build", "command", "require", "unsupported"]

# Operators that the ONNX parser of TensorRT 10.0 supports, opsets 9 to 20 (docs/operators.md of onnx/onnx-tensorrt).
OPERATORS = frozenset(
    "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil "
    "Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace "
    "DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements "
    "GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample "
    "GroupNormalization GRU HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN "
    "LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max "
    "MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow "
    "PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 "
    "ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu "
    "Reshape Resize ReverseSequence RNN RoiAlign Round Scan ScatterElements ScatterND Selu Shape Shrink Sigmoid "
    "Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh "
    "ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor".split()
)


def unsupported(operators: Iterable[str]) -> list[str]:
    """Return the operators of an ONNX graph that TensorRT's parser does not support."""
    return sorted(set(operators) - OPERATORS)


def command(onnx: Path, size: tuple[int, int], dynamic: bool, half: bool) -> str:
    """Return the trtexec command that builds an engine from an exported ONNX file, of TensorRT 10 and 11.

    For fp16 the file is of fp16 itself, and the network strongly typed: TensorRT 11, where every network is, has no
    ``--fp16`` any more.
    """
    words = ["trtexec", f"--onnx={onnx}", f"--saveEngine={onnx.with_suffix('.engine')}"]
    if dynamic:
        profile = zip(("min", "opt", "max"), _profile(size))
        words += [f"--{name}Shapes=images:{'x'.join(map(str, shape))}" for name, shape in profile]
    return shlex.join([*words, "--stronglyTyped"] if half else words)


def _profile(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Return the minimum, optimum and maximum input shape (B, 3, H, W) of a dynamic engine, multiples of every stride."""
    h, w = size
    return [(1, 3, min(h, 320), min(w, 320)), (1, 3, h, w), (8, 3, max(h, 1280), max(w, 1280))]


def require(onnx: Path, size: tuple[int, int], dynamic: bool, half: bool) -> None:
    """Check that an engine can be built on this machine.

    Raises:
        UsageError: TensorRT or a CUDA device is missing; the message gives the command for a machine that has them.
    """
    import torch

    missing = [] if importlib.util.find_spec("tensorrt") else ["TensorRT (pip install tensorrt)"]
    missing += [] if torch.cuda.is_available() else ["a CUDA device"]
    if missing:
        raise UsageError(
            f"--format engine needs {' and '.join(missing)}, which this machine lacks. Export to ONNX here (--format "
            f"onnx), then run on the target machine: {command(onnx, size, dynamic, half)}"
        )


def build(
    onnx: Path, target: Path, size: tuple[int, int], dynamic: bool, half: bool, log: Callable[[str], Any]
) -> Path:
    """Build an engine from an ONNX file and return its path.

    Raises:
        ExportError: TensorRT cannot parse or build the file; the message includes TensorRT's own.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # the file is of fp16 itself, so its types are kept; TensorRT 11 does so always and has neither flag
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED" if half else "EXPLICIT_BATCH", None)
    network = builder.create_network(1 << int(flag) if flag is not None else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        words = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"{onnx}: TensorRT {trt.__version__} cannot read it: {words}")
    config = builder.create_builder_config()
    if dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, *_profile(size))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"{onnx}: TensorRT {trt.__version__} built no engine; see its output above")
    write_bytes(target, memoryview(engine))
    log(f"engine: {target} ({target.stat().st_size / 1e6:.1f} MB, TensorRT {trt.__version__})")
    return target
