"""Detectors: opened from a checkpoint, a bundle or a YAML; attention attached and detached."""
