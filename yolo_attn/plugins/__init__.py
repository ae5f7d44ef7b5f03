"""The package of users' plug-ins: `my_attn.py` is imported, and pickled, as ``yolo_attn.plugins.my_attn``.

The folder itself stays empty. Importing it installs :mod:`yolo_attn.registry.finder`, which finds the files.
"""

from ..registry import finder

finder.install()
