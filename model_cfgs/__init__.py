"""The model YAMLs of the kit; a package so that `importlib.resources` finds them in every kind of install."""
