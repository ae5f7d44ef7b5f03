"""The subcommands of `yolo-attn`, one a file: `configure(parser)` adds options, `run(args)` returns the exit code."""
