"""What is inside `train_detect.py`: options, both hosts, the run's folder, the embedded data set."""
