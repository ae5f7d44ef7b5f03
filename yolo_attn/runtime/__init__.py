"""Detection from an exported file with only NumPy, OpenCV and one runtime: no torch, no ultralytics.

Letterbox, decoding, NMS and rounding follow ultralytics, so that results are equal to its `predict` on the same file.
"""
