"""What goes where: reading checkpoints, matching layers, starting from pretrained weights."""
