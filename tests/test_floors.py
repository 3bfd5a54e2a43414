"""The house keeps its floors: a module imports only from floors below it (see docs/architecture.md)."""

import ast
from pathlib import Path

from importlinter import cli

ROOT = Path(__file__).parent.parent


def test_imports_point_downwards() -> None:
    assert cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == cli.EXIT_STATUS_SUCCESS


def test_one_module_imports_pycolmap() -> None:
    importers = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(name.name.split(".")[0] == "pycolmap" for name in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pycolmap")
    ]
    assert set(importers) == {"src/unposed/io/colmap.py"}


def test_importing_the_package_is_light() -> None:
    """`unposed --help` must not wait for torch-heavy modules or a browser toolkit."""
    import subprocess
    import sys

    heavy = ("viser", "pycolmap", "trimesh", "av", "cv2")
    code = f"import sys, unposed.cli; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
