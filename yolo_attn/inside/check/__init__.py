"""What a module must stand before it is trained and deployed: shapes, precision, gradients, copies, compilation, ONNX, cost.

:mod:`.subject` builds the module under test, one file a concern holds its checks, :mod:`.run` walks them in this process
and :mod:`.child` in one of their own, where a module may crash, hang or print. :mod:`.blame` finds the line of the file.
"""
