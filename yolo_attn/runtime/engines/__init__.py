"""The runtimes that run exported detectors, one a file, each behind :class:`.network.Network`."""
