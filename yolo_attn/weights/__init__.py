"""Weights: reading checkpoints, matching layers, building detectors from pretrained weights."""
