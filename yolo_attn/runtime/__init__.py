"""Detection from an ONNX file with numpy, OpenCV and onnxruntime alone: no torch, no ultralytics.

The arithmetic is the ultralytics host's own (letterbox, decode, NMS, rounding), so that results are equal to its
`predict` on the same file.
"""
