"""A model as people draw YOLO in papers: backbone, neck and head in columns, true channels and sizes, attention in colour.

:mod:`.scene` reads a YAML or checkpoint, :mod:`.columns` puts each row into a column and a slot, :mod:`.routing` leads the
arrows around the boxes, :mod:`.picture` draws with matplotlib and :mod:`.dot` writes for Graphviz.
"""
