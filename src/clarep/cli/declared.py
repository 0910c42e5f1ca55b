"""What a command declares, read without importing what it runs on.

Options are dataclasses beside the library code that owns them, and that code imports torch, which
takes seconds. Help and mistakes need the dataclasses alone: of every module, no more is executed
here than they are made of, and no method of theirs.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_ROOT = Path(__file__).parents[1]


def declared(module: str, name: str) -> Any:
    """Return a class or a constant of a module of clarep without its imports and its methods."""
    return _Declarations.of(module).value(name)


class _Declarations(ModuleType):
    """A module of clarep of which single top-level names are executed, as they are asked for."""

    @staticmethod
    @cache
    def of(module: str) -> "_Declarations":
        return _Declarations(module)

    def __init__(self, module: str) -> None:
        super().__init__(f"{module}:declared")
        path = _ROOT.joinpath(*module.split(".")[1:])
        self.__file__ = str(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
        sys.modules[self.__name__] = self  # where type hints and docs are looked up
        body = ast.parse(Path(self.__file__).read_text(encoding="utf-8")).body
        self._statements = {name: statement for statement in body for name in _binds(statement)}

    def __getattr__(self, name: str) -> Any:
        if name not in self._statements:
            raise AttributeError(name)
        return self.value(name)

    def __dir__(self) -> list[str]:
        return list(self._statements)

    def value(self, name: str) -> Any:
        if name not in vars(self):
            self._execute(name, self._statements[name])
        return vars(self)[name]

    def _execute(self, name: str, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ImportFrom) and f"{statement.module}.".startswith("clarep."):
            asked_for = next(one.name for one in statement.names if name in (one.asname, one.name))
            setattr(self, name, declared(str(statement.module), asked_for))
            return
        if name == "import_module":  # what it would import is declared too
            setattr(self, name, _Declarations.of)
            return
        if isinstance(statement, ast.ClassDef):
            methods = (ast.FunctionDef, ast.AsyncFunctionDef)
            statement.body = [one for one in statement.body if not isinstance(one, methods)]
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id != name and node.id in self._statements:
                self.value(node.id)
        code = compile(ast.Module([statement], []), str(self.__file__), "exec")
        exec(code, vars(self))  # it is our own source


def _binds(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a top-level statement defines."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (one.asname or one.name for one in statement.names)
    elif isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))
