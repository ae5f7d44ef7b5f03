"""Checkpoints and launch scripts of earlier releases import the trainer from here: ``yolo_attn.trainer.Trainer``."""

from .training.trainer import Trainer

__all__ = ["Trainer"]
