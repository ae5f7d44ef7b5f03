"""What the machine gives: processes, locks, a console."""
