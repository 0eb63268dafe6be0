"""Docstrings are noun phrases or imperatives."""

import ast
import re
from pathlib import Path

import pytest

FOLDERS = ("pipeline", "workers", "flows", "benchmarks", "examples", "tests/harness")
HEADLESS = re.compile(
    r"(What|Who|Whom|Whose|Whoever|Whether|How|Where|Which|Why|Those|That|So many|Of|As)\b"
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_is_a_clause_without_a_head(folder: str) -> None:
    paths, headless = sorted(Path(folder).rglob("*.py")), list[str]()
    assert paths
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and HEADLESS.match(docstring := ast.get_docstring(node) or ""):
                headless.append(f"{path}:{getattr(node, 'lineno', 1)}: {docstring.splitlines()[0]}")
    assert headless == []
