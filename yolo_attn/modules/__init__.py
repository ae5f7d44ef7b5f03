"""Attention modules, one paper or family a file. Importing a file registers what it defines."""
