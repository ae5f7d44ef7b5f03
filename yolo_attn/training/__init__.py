"""Training, the inside of `train_detect.py`: options, both hosts, folders of runs, the embedded data set."""
