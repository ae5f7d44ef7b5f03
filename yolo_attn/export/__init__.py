"""Write a format, and prove that the file computes what PyTorch computes."""
