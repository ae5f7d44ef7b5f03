"""What a detector reaches on labelled images, and how far the choice of images matters: one evaluator for both hosts."""
