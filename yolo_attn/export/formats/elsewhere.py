"""Files that this machine cannot run: beside one, a script that proves it where it runs, with inputs and outputs."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...detectors.drawn import drawn_images
from ...files import write_bytes, write_text
from ...runtime import boxes
from ...runtime.image import letterbox
from .. import proof, report
from .base import Format, Job

__all__ = ["engine_report", "leave_proof", "proof_script"]

# How a file is run, by format: `run(images)` maps (N, H, W, 3) RGB bytes to the outputs, the main one first.
RUNNERS = {
    "coreml": '''
def run(path, images):
    """Needs macOS, and: pip install coremltools pillow"""
    import coremltools
    from PIL import Image

    model = coremltools.models.MLModel(path, compute_units=coremltools.ComputeUnit.CPU_ONLY)
    name = model.get_spec().description.input[0].name
    rows = [list(model.predict({name: Image.fromarray(im)}).values()) for im in images]
    return [np.concatenate([np.asarray(v) for v in values]) for values in zip(*rows)]
''',
    "engine": '''
def run(path, images):
    """Needs the GPU that the engine was built for, and: pip install tensorrt torch"""
    import tensorrt
    import torch

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    with open(path, "rb") as file:
        engine = tensorrt.Runtime(logger).deserialize_cuda_engine(file.read())
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    given = [n for n in names if engine.get_tensor_mode(n) == tensorrt.TensorIOMode.INPUT]
    rows = []
    for im in images:
        x = torch.from_numpy(np.ascontiguousarray(im.transpose(2, 0, 1)[None])).float().cuda() / 255
        context.set_input_shape(given[0], tuple(x.shape))
        buffers = {given[0]: x}
        for n in names:
            if n not in given:
                buffers[n] = torch.empty(tuple(context.get_tensor_shape(n)), dtype=torch.float32, device="cuda")
            context.set_tensor_address(n, buffers[n].data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        torch.cuda.synchronize()
        rows.append([buffers[n].cpu().numpy() for n in names if n not in given])
    return [np.concatenate(values) for values in zip(*rows)]
''',
}

MAIN = '''
def main():
    here = os.path.dirname(os.path.abspath(__file__))
    kept = np.load(os.path.join(here, EXPECTED))
    expected = [kept[k] for k in sorted(kept.files) if k.startswith("output")]
    outputs = run(os.path.join(here, FILE), kept["images"])
    wrong = [] if outputs else ["it has no output"]
    for k, e in enumerate(expected):  # some runtimes name the outputs, and do not order them
        same = [y for y in outputs if y.shape == e.shape]
        if not same:
            wrong.append("no output has the shape %s of PyTorch's output %d, but %s" % (e.shape, k, [y.shape for y in outputs]))
            continue
        if LAYOUT:
            parts = largest_difference(e, same[0], LAYOUT)
        else:
            parts = {"output %d" % k: min(_relative(e, y) for y in same)}
        for name, value in parts.items():
            print("%s differ by %.1e of their scale, %.0e is allowed" % (name, value, TOLERANCE))
            if not value <= TOLERANCE:
                wrong.append("the %s differ by %.1e" % (name, value))
        if LAYOUT:
            for a, b in zip(e, same[0]):
                d = compare_detections(a, b, LAYOUT, tolerance=TOLERANCE, least_iou=LEAST_IOU)
                print("of %(compared)d detections %(missing)d are missing and %(extra)d are new" % d)
                if d["missing"] or d["extra"]:
                    wrong.append("detections differ")
    print("DIFFERS FROM PYTORCH: %s. Do not deploy it." % "; ".join(wrong) if wrong else "proved: equal to PyTorch.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
'''


def proof_script(format: str, name: str, expected: str, layout: str | None, tolerance: float, least_iou: float) -> str:
    """Return a script that compares a file with PyTorch's outputs, by the kit's own code, and needs only NumPy besides.

    Args:
        format: A key of :data:`RUNNERS`.
        name: Name of the file, beside the script.
        expected: Name of the archive of images and PyTorch's outputs, beside the script.
        layout: Layout of a detector's output, or None for other tasks.
        tolerance: Largest difference, relative to the scale of the output.
        least_iou: Boxes with a smaller IoU do not match.
    """
    constants = {
        "FILE": name,
        "EXPECTED": expected,
        "LAYOUT": layout or "",
        "TOLERANCE": tolerance,
        "LEAST_IOU": least_iou,
        **{k: getattr(boxes, k) for k in ("MAX_CANDIDATES", "CONF", "IOU", "MAX_DET", "FAR")},
        **{k: getattr(proof, k) for k in ("MIN_IOU", "LEAST_SCORE_SCALE", "LEAST_CONFIDENCE", "AT_THE_LIMIT")},
    }
    functions: list[Callable[..., Any]] = [boxes.decode, boxes.iou_matrix, boxes.nms, boxes.chosen, boxes.suppress]
    functions += [proof._candidates, proof._unmatched, proof.compare_detections, proof.largest_difference, proof._relative]
    parts = [
        f'"""Compare {name} with PyTorch\'s outputs, on a machine that runs it: python {name}.prove.py"""',
        "from __future__ import annotations\n\nimport os\nimport sys\nfrom typing import Any\n\nimport numpy as np\n",
        "\n".join(f"{k} = {v!r}" for k, v in constants.items()) + "\n",
        *(inspect.getsource(f) + "\n" for f in functions),
        RUNNERS[format].strip() + "\n\n",
        MAIN.strip() + "\n",
    ]
    return "\n\n".join(parts[:2]) + "\n" + "\n\n".join(parts[2:])


def leave_proof(
    format: Format,
    job: Job,
    made: Path,
    target: Path,
    found: dict[str, Any],
    images: list[Any] | None,
    tolerance: float | None,
    move: Callable[[Path, Path], None],
    log: Callable[[str], Any],
) -> None:
    """Move a file to its place that cannot be run here, and write a report, a script and its data beside it.

    Raises:
        FileError: One of them cannot be written.
    """
    report.place_file(made, target, found, move)
    script = write_proof(format.name, job, target, images, tolerance)
    found["proof"] = {"passed": False, "problem": f"not run: it runs on {format.where} alone", "script": script.name}
    report.write(target, found)
    log(
        f"converted, not proved on this machine: it runs on {format.where} alone. Prove it there: python {script.name}"
    )


def engine_report(
    job: Job,
    target: Path,
    found: dict[str, Any],
    images: list[Any] | None,
    tolerance: float | None,
    log: Callable[[str], Any],
) -> dict[str, Any]:
    """Write and return the report of a TensorRT engine: what was proved is the ONNX file that it was built from.

    Args:
        job: What was exported.
        target: The engine.
        found: The report of the ONNX file.
        images: As for :func:`write_proof`.
        tolerance: As for :func:`write_proof`.
        log: Called with each line of progress.

    Raises:
        FileError: The report, the script or its data cannot be written.
    """
    proof: dict[str, Any] = {"passed": False, "problem": "not run: the ONNX file that it was built from was"}
    told = "converted, not proved: the ONNX file that it was built from was"
    if not (found["nms"] or found["end2end"]):  # the script knows the outputs that PyTorch has
        proof["script"] = write_proof("engine", job, target, images, tolerance).name
        told += f". Prove it on this GPU: python {proof['script']}"
    about = report.described(job.source, target, found["attention"], found["versions"])
    kept = {k: v for k, v in found.items() if k not in ("graph", "seconds", "int8", "map")}
    made = {**kept, **about, "end2end": found["end2end"], "format": "engine", "onnx": found["path"], "proof": proof}
    report.write(target, made)
    log(told)
    return made


def write_proof(format: str, job: Job, target: Path, images: list[Any] | None, tolerance: float | None = None) -> Path:
    """Write the script and its data beside a file; return the path of the script.

    The tolerance is that of the precision when absent.

    Raises:
        FileError: One of them cannot be written.
    """
    import torch

    pictures = drawn_images(2) if images is None else images
    fitted = np.stack([np.ascontiguousarray(letterbox(im, job.size)[0][..., ::-1]) for im in pictures])  # RGB
    x = np.ascontiguousarray(fitted.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    reference = report.reference(job.source, end2end=False)
    with torch.inference_mode():
        outputs = [t.float().numpy() for t in reference(torch.from_numpy(x))]
    stored = io.BytesIO()
    arrays: dict[str, Any] = {f"output{k}": y for k, y in enumerate(outputs)}
    np.savez_compressed(stored, images=fitted, **arrays)
    expected = target.with_name(f"{target.name}.expected.npz")
    write_bytes(expected, stored.getvalue())
    precision = "fp16" if job.half else "fp32"
    layout = job.source.layout if job.source.task == "detect" else None
    script = target.with_name(f"{target.name}.prove.py")
    limits = report.TOLERANCES[precision] if tolerance is None else tolerance, report.LEAST_IOU[precision]
    write_text(script, proof_script(format, target.name, expected.name, layout, *limits))
    return script
