"""Find all packages that a classic host imports and that are missing here, before any of it runs."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from ..errors import HostError

__all__ = ["missing", "require"]

# Names of packages on PyPI that differ from their import names.
PIP = {
    "cv2": "opencv-python", "yaml": "pyyaml", "PIL": "pillow", "git": "gitpython", "pkg_resources": "'setuptools<81'",
    "dateutil": "python-dateutil", "dotenv": "python-dotenv", "google": "protobuf", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "IPython": "ipython",
}  # fmt: skip
# Imports in a `try` that catches one of these are optional.
FORGIVEN = frozenset(["ImportError", "ModuleNotFoundError", "Exception", "BaseException", "AssertionError"])


def require(root: Path, script: str = "train.py") -> None:
    """Check that the packages that a script of the host imports are installed.

    Args:
        root: The host's folder.
        script: A file in it.

    Raises:
        HostError: Some are missing; the message lists all and the command that installs them.
    """
    names = missing(root, script)
    if names:
        install = " ".join(PIP.get(n, n) for n in names)
        raise HostError(f"{root / script} needs {', '.join(names)}, which are not installed. 'pip install {install}'")


def missing(root: Path, script: str = "train.py") -> list[str]:
    """Return the import names of missing packages, sorted; follows files of the host; of functions, those that the script calls."""
    lacking: set[str] = set()
    seen: set[Path] = set()
    todo = [root / script]
    called = set(_called(root / script))
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in _imports(file, root, called):
            own = _own_files(name, root)
            top = "tensorboard" if name.startswith("torch.utils.tensorboard") else name.partition(".")[0]
            if own:
                todo += own
            elif not _importable(top):
                lacking.add(top)
    return sorted(lacking)


def _called(script: Path) -> Iterator[str]:
    """Yield the names of functions that a script calls when it is imported: v7.0 imports `git` in one of them."""
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in _executed(tree.body):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Expr)):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                    yield call.func.id


def _imports(file: Path, root: Path, called: set[str]) -> Iterator[str]:
    """Yield the absolute names that importing a file imports; for `from a import b`, both `a` and `a.b`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # the host will report it
    functions = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in called)
    inside = [n for f in functions for n in f.body if isinstance(n, (ast.Import, ast.ImportFrom))]  # without condition
    for node in [*_executed(tree.body), *inside]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ""
            if node.level:
                folder = file.parents[node.level - 1]
                if folder != root and root not in folder.parents:
                    continue
                above = ".".join(folder.relative_to(root).parts)
            base = ".".join(filter(None, [above, node.module]))
            if base:
                yield base
            for alias in node.names:
                name = ".".join(filter(None, [base, alias.name]))
                if _own_files(name, root):
                    yield name


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run on import, except those that may fail."""
    for node in body:
        if isinstance(node, ast.Try):
            if not any(_forgives(handler.type) for handler in node.handlers):
                yield from _executed(node.body)
            yield from _executed(node.finalbody)
        elif isinstance(node, ast.If):
            if not any(isinstance(n, (ast.Name, ast.Attribute)) and _name(n) in ("__name__", "TYPE_CHECKING")
                       for n in ast.walk(node.test)):  # fmt: skip
                yield from _executed(node.body)
        elif isinstance(node, (ast.With, ast.ClassDef)):
            yield from _executed(node.body)
        else:
            yield node


def _forgives(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(_name(n) in FORGIVEN for n in names)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _own_files(name: str, root: Path) -> list[Path]:
    """Return the files of the host that importing a name runs; none if the name is not the host's."""
    parts = name.split(".")
    if parts[0] == root.name and (root / "__init__.py").is_file():  # the package imports itself by its full name
        parts = parts[1:]
    files = [root / "__init__.py"] if len(parts) < len(name.split(".")) else []
    path = root
    for i, part in enumerate(parts):
        path = path / part
        if path.is_dir() and (i or (path / "__init__.py").is_file() or any(path.glob("*.py"))):
            files += [path / "__init__.py"] if (path / "__init__.py").is_file() else []
        elif path.with_suffix(".py").is_file():
            return [*files, path.with_suffix(".py")]
        else:
            return []
    return files


def _importable(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):  # a module in sys.modules without a spec
        return True
