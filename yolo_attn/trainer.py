"""The name under which checkpoints and launch scripts of earlier releases hold the trainer: ``yolo_attn.trainer.Trainer``."""

from .training.trainer import Trainer

__all__ = ["Trainer"]
