"""`python -m yolo_attn`."""

from .cli import main

raise SystemExit(main())
