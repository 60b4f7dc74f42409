"""The parts of a kind by name: one module each, found by looking, so that a new part is one new file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from aegl.errors import ConfigError
from aegl.longtail.options import OptionHelp, check_options, describe_options, near
from aegl.longtail.statistics import ClassStatistics

Part = TypeVar("Part")


class Registry(Mapping[str, type[Part]], Generic[Part]):
    """Classes of one kind: public modules of a package, each holding exactly one public class of that kind.

    The name of the module is the name of the part. The path of a ``.py`` file names a part outside of this package. A
    module is imported when its part is first asked for.

    Args:
        key: section of the configuration that names and sets up such a part, for messages.
        package: dotted name of the package.
        base: the contract that the parts implement.
    """

    def __init__(self, key: str, package: str, base: type[Part]) -> None:
        self.key = key
        self.package = package
        self.base = base

    def __getitem__(self, name: str) -> type[Part]:
        """The class of a name. Raises ``KeyError`` for an unknown one; see :meth:`part` for users' input."""
        if name not in self._names():
            raise KeyError(name)
        return self._class_in(importlib.import_module(f"{self.package}.{name}"))

    def __iter__(self) -> Iterator[str]:
        """Names of the parts of this package, sorted."""
        return iter(self._names())

    def __len__(self) -> int:
        """Number of parts of this package."""
        return len(self._names())

    def part(self, name: str) -> type[Part]:
        """The class that a user names.

        Raises:
            ConfigError: with the near names for an unknown one, or if a ``.py`` file cannot be used.
        """
        if name.endswith(".py"):
            return self._class_in(load_module(Path(name), f"{self.key}.name"))
        if name not in self:
            known = ", ".join(self)
            raise ConfigError(
                f"{self.key}.name={name}: unknown{near(name, self)}; known are {known}, or give the path of a .py file"
            )
        return self[name]

    def validate(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Every option of a part in its own type, those not given with their defaults.

        Args:
            name: of the part.
            options: by name, without the section.

        Raises:
            ConfigError: unknown part, or every unknown option and unusable value, one per line.
        """
        return check_options(self.part(name), options, section=self.key, name=name)

    def describe(self, name: str) -> list[OptionHelp]:
        """Help on every option of a part, in the order of its constructor. Raises as :meth:`part`."""
        return describe_options(self.part(name))

    def build(self, name: str, stats: ClassStatistics, /, **options: Any) -> Part:
        """Make a part for a training set, with checked options. Raises as :meth:`validate`."""
        return self.part(name)(stats, **self.validate(name, options))  # type: ignore[call-arg]

    def _names(self) -> list[str]:
        paths = importlib.import_module(self.package).__path__
        return sorted(module.name for module in pkgutil.iter_modules(paths) if not module.name.startswith("_"))

    def _class_in(self, module: ModuleType) -> type[Part]:
        found = [
            candidate
            for name, candidate in inspect.getmembers(module, inspect.isclass)
            if issubclass(candidate, self.base) and candidate.__module__ == module.__name__ and not name.startswith("_")
        ]
        if len(found) != 1:
            names = ", ".join(candidate.__name__ for candidate in found) or "none"
            wanted = f"must define exactly one public {self.base.__name__}"
            raise ConfigError(f"{self.key}.name={module.__file__}: {wanted}, it has {names}")
        return found[0]


def load_module(path: Path, key: str) -> ModuleType:
    """The module of a user's file; the same one each time, so that its classes stay what they are.

    Args:
        path: the file.
        key: that names it, for messages.

    Raises:
        ConfigError: if it is missing or cannot be imported.
    """
    name = f"aegl_{key.replace('.', '_')}_{path.resolve()}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise ConfigError(f"{key}={path}: no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{key}={path}: cannot be imported ({reason})") from error
    return module
