"""The commands of `yolo-attn`, one per file: `configure(parser)` adds options, `run(args)` returns the exit code."""
