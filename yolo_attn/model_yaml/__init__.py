"""The model YAML: find, check and read it, and put attention into it."""
