"""Names to classes: what may stand in a row, how its numbers become arguments, whose code may run."""
