"""The formats beside ONNX: one a file, each converted by its host where that has a converter, and run to be proved."""
