"""What users' files become: `my_attn.py` is imported as ``yolo_attn.plugins.my_attn``, and its classes pickle by that name.

Nothing lies here. Importing this package puts :mod:`yolo_attn.registry.finder` in its place, which finds the files.
"""

from ..registry import finder

finder.install()
