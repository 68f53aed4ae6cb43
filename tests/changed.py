"""Prints the test files that changes since a commit concern: `python -m tests.changed [COMMIT]`, for `make check`.

At most MOST of them, so that they take less than a minute: those first that import least beside what was changed. What
is left out is said on stderr, for `make test`.

A changed test file concerns itself. A changed module concerns the test files that import it, directly or by one helper
module of tests/. Anything else (manifests, documents) concerns the test files that mention its name or its folder.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = 10
ALWAYS = "tests/dpconvert/test_architecture.py"


def changed_files(commit: str) -> list[str]:
    """Paths of files that differ from the commit, relative to the root, and of new ones that Git does not ignore."""
    commands = ["git", "diff", "--name-only", commit], ["git", "ls-files", "--others", "--exclude-standard"]
    outputs = [subprocess.run(one, cwd=ROOT, check=True, capture_output=True, text=True).stdout for one in commands]
    return sorted({line for output in outputs for line in output.splitlines()})


def files_for(changed: Collection[str]) -> list[str]:
    """The test files that the changed files concern: they themselves, then those that import least."""
    files = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "tests").rglob("*.py"))}
    imports = {name: imported_modules(path.read_text()) for name, path in files.items()}
    concerned = {name for one in changed for name in files if is_concerned(name, one, imports[name], files[name])}
    helpers = {module_of(name) for name in concerned if not Path(name).name.startswith("test_")}
    concerned |= {name for name in files if imports[name] & helpers}
    tests = {name for name in concerned if Path(name).name.startswith("test_")}
    return sorted({*tests, ALWAYS} if tests else [], key=lambda name: (name not in changed, len(imports[name]), name))


def is_concerned(test: str, changed: str, imported: set[str], path: Path) -> bool:
    """Whether a change of the file concerns the test file (or helper module) directly."""
    if test == changed:
        return True
    if changed.endswith(".py") and changed.startswith(("dpconvert/", "mtrain/", "tests/")):
        return module_of(changed) in imported
    if changed.startswith(("manifests/", "docs/")):
        parent, stem = Path(changed).parts[0], Path(changed).stem
        return f'"{parent}"' in (text := path.read_text()) or f'"{stem}"' in text
    return f'"{Path(changed).name}"' in path.read_text()


@cache
def imported_modules(source: str) -> set[str]:
    """Names of the modules that a program may import, at its top or within functions."""
    names: set[str] = set()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements; `ast.walk` goes through every expression too, which takes seconds for the whole of tests/."""
    for node in children(tree):
        yield node
        yield from statements(node)


def children(node: ast.AST) -> Iterator[ast.AST]:
    """The statements directly within a statement, or within a branch of it."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        found = getattr(node, field, ())
        yield from found if isinstance(found, list) else ()


def module_of(path: str) -> str:
    """Of `dpconvert/image/__init__.py`: dpconvert.image."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def main() -> None:
    """Print the test files for the commit on the command line, HEAD by default."""
    files = files_for(changed_files(*sys.argv[1:2] or ["HEAD"]))
    sys.stdout.writelines(f"{name}\n" for name in files[:MOST])
    if left_out := files[MOST:]:
        sys.stderr.write(f"{len(left_out)} more test files import what changed; `make test` runs them\n")


if __name__ == "__main__":
    main()
