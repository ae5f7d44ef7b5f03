"""The names that the package offers: all resolve, whatever was imported before, and importing them costs nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import yolo_attn

SOURCE = Path(yolo_attn.__file__)


def test_importing_the_kit_imports_no_host_and_no_torch(python) -> None:  # type: ignore[no-untyped-def]
    python(
        "import sys, yolo_attn\n"
        "heavy = {'torch', 'ultralytics', 'yolov5', 'numpy', 'cv2', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    ).ok()


def test_every_public_name_resolves_though_every_module_was_imported_first(python) -> None:  # type: ignore[no-untyped-def]
    """A submodule of the same name would stand in the function's place."""
    python(
        """
        import importlib, pkgutil, types, yolo_attn
        for info in pkgutil.iter_modules(yolo_attn.__path__):
            if not info.name.startswith("__") and info.name != "setup":
                try:
                    importlib.import_module(f"yolo_attn.{info.name}")
                except (ImportError, SystemExit):  # what lies beside a bare checkout
                    pass
        wrong = [n for n in yolo_attn.__all__ if isinstance(getattr(yolo_attn, n), types.ModuleType)]
        assert not wrong, wrong
        """
    ).ok()


def test_dir_shows_the_public_names_and_no_more(python) -> None:  # type: ignore[no-untyped-def]
    python(
        """
        import yolo_attn
        shown = {n for n in dir(yolo_attn) if not (n.startswith("__") and n.endswith("__"))}
        assert shown == {n for n in yolo_attn.__all__ if n != "__version__"}, shown
        yolo_attn.insert, yolo_attn.load
        import yolo_attn.registry.registry
        assert {n for n in dir(yolo_attn) if not n.startswith("__")} == shown
        """
    ).ok()


def test_type_checkers_see_what_is_resolved_at_run_time() -> None:
    """The imports under TYPE_CHECKING are the lazy ones, name for name and module for module."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {
        a.asname or a.name: f"{node.module}:{a.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for a in node.names
    }
    lazy = {n: home if ":" in home else f"{home}:{n}" for n, home in yolo_attn._EXPORTS.items()}
    assert seen == lazy
    assert set(yolo_attn.__all__) == {*lazy, "__version__"}
    assert yolo_attn.__all__ == sorted(yolo_attn.__all__)
