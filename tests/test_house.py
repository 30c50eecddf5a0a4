"""The sizes that keep the code readable, and files that import each other in a circle."""

import ast
import statistics
from pathlib import Path

import hierax as hx

ROOT = Path(hx.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def length(function):
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    says = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return lines - (first.end_lineno - first.lineno + 1 if says else 0)


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.name}", length(node)


def test_functions_are_short():
    sizes = dict(functions())
    assert statistics.median(sizes.values()) <= 6
    assert {name: size for name, size in sizes.items() if size > 60} == {}


def test_files_and_folders_are_small():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lengths.items() if count > 400} == {}
    folders = {path.parent for path in FILES}
    counts = {folder.name: len([one for one in folder.glob("*.py") if one.name != "__init__.py"]) for folder in folders}
    assert {name: count for name, count in counts.items() if count > 14} == {}


def module_of(path):
    parts = ("hierax", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, known):
    """Modules that a file imports, also inside functions, but not for the type checker alone."""
    tree = ast.parse(path.read_text())
    for_types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    unseen = {id(child) for node in for_types for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in known and id(node) not in unseen:
            inside = {f"{node.module}.{name.name}" for name in node.names} & known
            yield from inside or {node.module}


def circles(graph):
    """Sets of modules that reach each other (Tarjan's strongly connected components)."""
    reach = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for other in graph[todo.pop()]:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        reach[start] = seen
    return {frozenset(other for other in reach[one] if one in reach[other]) for one in graph if one in reach[one]}


def test_no_files_import_each_other_in_a_circle():
    known = {module_of(path) for path in FILES}
    graph = {module_of(path): set(imports(path, known)) for path in FILES}
    assert [sorted(circle) for circle in circles(graph)] == []


# The command line starts quickly because it imports Hierax, and with it JAX, only once its arguments hold.
LAZY = {"cli/commands.py", "cli/arguments.py", "cli/outputs.py"}
HEAVY = {"arviz", "cloudpickle", "diffrax", "equinox", "jax", "matplotlib", "narwhals", "optimistix", "scipy"}


def test_imports_inside_functions_are_of_heavy_packages_alone():
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in (inner for body in bodies for inner in ast.walk(body)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            where = str(path.relative_to(ROOT))
            found += [f"{where}: {name}" for name in names if name.split(".")[0] not in HEAVY and where not in LAZY]
    assert found == []
