"""Fp16 of LiteRT by ai-edge-quantizer, as the host's exporter has none.

The weights of convolutions and of products with constants are in fp16, each behind an operator that widens it; biases are in
fp32. The CPU widens them when the file is loaded, and computes in fp32; GPUs of phones compute in fp16.
"""

from __future__ import annotations

from pathlib import Path

from .litert_file import write_like

__all__ = ["halve"]


def halve(path: Path) -> Path:
    """Replace the weights of a file in fp32 by the nearest fp16; return its path."""
    from ai_edge_quantizer import qtyping, quantizer, recipe

    made = quantizer.Quantizer(path.read_bytes())
    made.add_weight_only_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=recipe.AlgorithmName.FLOAT_CASTING,
    )
    network = made.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model
    write_like(path, path, bytes(network), "fp16")
    return path
