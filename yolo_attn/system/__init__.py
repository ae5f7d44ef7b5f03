"""The operating system: processes, locks and the console."""
