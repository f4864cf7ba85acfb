"""Definitions of this package as one plain module: their own source, with all that they use of ours in front of it.

pydantic's models become frozen dataclasses: what is in a script has been validated. A definition that needs a library
which a script may not have is a mistake of ours, found by the tests.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

OURS: Final = "pipeline"
LIBRARIES: Final = frozenset({"numpy", "pandas", "pyarrow", "sklearn", "torch"})
"""What a script may import besides Python's own modules."""
_VALIDATORS: Final = frozenset({"model_validator", "field_validator"})
_RENAMED: Final = {"FiniteFloat": "float"}
"""pydantic's types, and what a dataclass has for them."""


@dataclass(slots=True)
class _Module:
    """A module of ours, read but not run."""

    name: str
    text: str
    story: str
    """The first sentence of its docstring."""
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    """Top-level statements by what they define; a constant comes with the docstring behind it."""
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Local name to module and the name in it; None where the module itself is meant."""


@dataclass(slots=True)
class _Needed:
    """What a script takes of our modules, and the libraries behind it."""

    names: dict[str, dict[str, str]] = field(default_factory=dict)
    """Module to name to source."""
    libraries: dict[tuple[str, str | None], set[str]] = field(default_factory=dict)
    """Module and name in it to the local names it has."""


def bundle(roots: Iterable[tuple[str, str]]) -> str:
    """A module that defines the roots, each a module and a name in it. It begins with its imports."""
    needed = _Needed()
    for module, name in roots:
        _need(module, name, needed)
    owners: dict[str, str] = {}
    for module, definitions in needed.names.items():
        for name in definitions:
            assert owners.setdefault(name, module) == module, f"{name} is defined by {owners[name]} and by {module}"
    sections = [_section(module, needed.names[module]) for module in _in_order(needed, owners)]
    return f"{_import_lines(needed)}\n\n" + "\n\n\n".join(sections) + "\n"


def _need(module_name: str, name: str, needed: _Needed) -> None:
    """Take a definition and everything that it uses."""
    module = _read(module_name)
    if name not in module.definitions:  # re-exported from elsewhere
        origin, original = module.imports[name]
        assert original == name, f"{module_name}.{name} has another name where it comes from"
        _need(origin, name, needed)
        return
    if name in needed.names.get(module_name, {}):
        return
    source = "\n".join(_source(module, node) for node in module.definitions[name])
    needed.names.setdefault(module_name, {})[name] = source
    for used in _used(source):
        if used in module.definitions:
            _need(module_name, used, needed)
        elif used in module.imports:
            origin, original = module.imports[used]
            if origin.split(".")[0] != OURS:
                _check_library(origin, module_name)
                needed.libraries.setdefault((origin, original), set()).add(used)
            else:
                assert original == used, f"{module_name} gives {origin}.{original} another name"
                _need(origin, used, needed)


def _in_order(needed: _Needed, owners: dict[str, str]) -> list[str]:
    """The modules, each behind those that it uses."""
    ordered: list[str] = []
    entered: set[str] = set()

    def visit(module: str) -> None:
        if module in entered:
            return
        entered.add(module)
        for source in needed.names[module].values():
            for used in _used(source):
                if used in owners:
                    visit(owners[used])
        ordered.append(module)

    for module in needed.names:
        visit(module)
    return ordered


def _check_library(origin: str, module: str) -> None:
    library = origin.split(".")[0]
    assert library in LIBRARIES or library in sys.stdlib_module_names, (
        f"{module} needs {library}, which scripts have not"
    )


@cache
def _read(name: str) -> _Module:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"there is no module {name}"
    text = Path(str(spec.origin)).read_text(encoding="utf-8")
    tree = ast.parse(text)
    story = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split()).removesuffix("::")
    module = _Module(name, text, story)
    previous: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module.imports[alias.asname or alias.name] = (str(node.module), alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module.imports[alias.asname or alias.name] = (alias.name, None)
        names = list(_defined(node))
        for defined in names:
            module.definitions[defined] = [node]
        if isinstance(node, ast.Expr) and previous:  # the docstring of a constant
            for defined in previous:
                module.definitions[defined].append(node)
        previous = names
    return module


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def _used(source: str) -> list[str]:
    """Names that a piece of source reads, its annotations included, in their order."""
    found = (node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return list(dict.fromkeys(found))


def _source(module: _Module, node: ast.stmt) -> str:
    if isinstance(node, ast.ClassDef) and _is_model(module, node):
        return _as_dataclass(module, node)
    return _lines(module, node)


def _lines(module: _Module, node: ast.stmt) -> str:
    """The source of a statement, decorators and comments in it included, without its indentation."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return textwrap.dedent("\n".join(module.text.splitlines()[first - 1 : node.end_lineno]))


def _is_model(module: _Module, node: ast.ClassDef) -> bool:
    """Whether a class comes from pydantic's BaseModel, through classes of ours."""
    for base in node.bases:
        if not isinstance(base, ast.Name):
            continue
        if base.id in module.definitions:
            [parent] = module.definitions[base.id]
            if isinstance(parent, ast.ClassDef) and _is_model(module, parent):
                return True
        elif base.id in module.imports:
            origin, original = module.imports[base.id]
            if (origin, original) == ("pydantic", "BaseModel"):
                return True
            if origin.startswith(f"{OURS}.") and original is not None and _is_model_of(origin, original):
                return True
    return False


def _is_model_of(origin: str, name: str) -> bool:
    module = _read(origin)
    if name not in module.definitions:
        further, original = module.imports[name]
        return further.startswith(f"{OURS}.") and original is not None and _is_model_of(further, original)
    node = module.definitions[name][0]
    return isinstance(node, ast.ClassDef) and _is_model(module, node)


def _as_dataclass(module: _Module, node: ast.ClassDef) -> str:
    """A pydantic model as a frozen dataclass: the same fields, defaults, docstrings and methods, no validation."""
    body: list[str] = []
    for statement in node.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "model_config":
            continue
        if isinstance(statement, ast.FunctionDef):
            if not any(name in _VALIDATORS for d in statement.decorator_list for name in _used(ast.unparse(d))):
                body.append("\n" + _lines(module, statement))
        elif isinstance(statement, ast.AnnAssign):
            value = "" if statement.value is None else f" = {ast.get_source_segment(module.text, statement.value)}"
            body.append(f"{ast.unparse(statement.target)}: {_plain(statement.annotation)}{value}")
        else:
            body.append(_lines(module, statement) + ("\n" if statement is node.body[0] else ""))
    inside = textwrap.indent("\n".join(body), "    ")
    return f"@dataclass(frozen=True, kw_only=True)\nclass {node.name}:\n{inside.rstrip()}"


def _plain(annotation: ast.expr) -> str:
    """An annotation without pydantic's bounds."""

    class Plain(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            if isinstance(node.value, ast.Name) and node.value.id in {"Annotated", "SerializeAsAny"}:
                inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
                visited: ast.AST = self.visit(inner)
                return visited
            return self.generic_visit(node)

        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.Name(_RENAMED.get(node.id, node.id), node.ctx)

    return ast.unparse(Plain().visit(annotation)).replace("'", '"')


def _section(name: str, sources: dict[str, str]) -> str:
    """What is needed of a module, in the module's order, under its story."""
    module = _read(name)
    ordered = [defined for defined in module.definitions if defined in sources]
    parts: list[str] = [textwrap.fill(f"{name}: {module.story}", 118, initial_indent="# ", subsequent_indent="# ")]
    said: set[int] = set()
    behind_block = False
    for defined in ordered:
        node = module.definitions[defined][0]
        if id(node) in said:  # one statement that defines several names
            continue
        said.add(id(node))
        block = isinstance(node, ast.FunctionDef | ast.ClassDef)
        # As the formatter has it: constants stand together, blocks apart.
        parts.append(("\n\n" if block or behind_block else "\n" if len(parts) == 1 else "") + sources[defined])
        behind_block = block
    return "\n".join(parts)


def _import_lines(needed: _Needed) -> str:
    """Python's own modules, then libraries, as the linter wants them."""
    libraries = dict(needed.libraries)
    if any("@dataclass(" in source for definitions in needed.names.values() for source in definitions.values()):
        libraries.setdefault(("dataclasses", "dataclass"), {"dataclass"})
    plain = [
        f"import {origin}" + (f" as {local}" if local != origin else "")
        for (origin, original), names in libraries.items()
        for local in names
        if original is None
    ]
    members: dict[str, set[str]] = {}
    for (origin, original), names in libraries.items():
        if original is not None:
            members.setdefault(origin, set()).update(
                original if local == original else f"{original} as {local}" for local in names
            )
    lines = plain + [_from(origin, sorted(names, key=_isort)) for origin, names in members.items()]
    own = [line for line in lines if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    others = [line for line in lines if line not in own]
    groups = [["from __future__ import annotations"], own, others]
    return "\n\n".join("\n".join(sorted(group, key=_import_order)) for group in groups if group)


def _from(origin: str, names: list[str]) -> str:
    line = f"from {origin} import {', '.join(names)}"
    return line if len(line) <= 120 else f"from {origin} import (\n    " + ",\n    ".join(names) + ",\n)"


def _isort(name: str) -> tuple[int, str]:
    """Constants, classes, then the others."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def _import_order(line: str) -> tuple[bool, str]:
    return line.startswith("from "), line.split()[1].lower()
