"""Detection from an ONNX file with only NumPy, OpenCV and onnxruntime: no torch, no ultralytics.

Letterbox, decoding, NMS and rounding follow ultralytics, so that results are equal to its `predict` on the same file.
"""
