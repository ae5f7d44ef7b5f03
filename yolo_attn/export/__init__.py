"""Export: write a file, and verify that it computes what PyTorch computes."""
