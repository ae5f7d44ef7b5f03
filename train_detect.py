"""Train a YOLO detector with attention.

    python train_detect.py --cfg yolov5s_se.yaml                    # embedded data set, a few minutes on a CPU
    python train_detect.py --cfg yolov5s_se.yaml --data my.yaml --weights yolov5su.pt --img 640 --device 0

All of it lives in `yolo_attn/training/ultralytics.py`; `python train_detect.py --help` shows the options.
"""

from __future__ import annotations

import sys

from yolo_attn.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
