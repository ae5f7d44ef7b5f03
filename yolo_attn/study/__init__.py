"""Does it help here? Trainings of several configs and seeds side by side, and statistics that hold."""
