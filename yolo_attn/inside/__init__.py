"""Look inside a trained detector: what its attention does, and whether the detector needs it."""
