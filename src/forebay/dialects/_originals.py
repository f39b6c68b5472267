"""Whether methods of somebody else's class are still the ones its package has written.

Our adapters go past some methods of a driver's, and of SQLAlchemy's: they do the same in fewer steps. A subclass of the
user's may have one of its own, a tool may have wrapped it, a test may have put a mock there. Then the method is what
the user wants called, and ours goes by it as SQLAlchemy does.

A wrapper may look like what it wraps in every respect: its name, its module, its type for ``isinstance()``, even when
it is compared. What it cannot have is the type of a plain function together with the globals of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType, MethodDescriptorType
from typing import Any

__all__ = ["Originals", "own_function"]


class Originals:
    """Some methods, by name, that may be gone past where they are the package's own.

    Args:
        packages: The packages whose methods they are, by the first part of their names.
        names: The methods.
    """

    def __init__(self, packages: Iterable[str], *names: str) -> None:
        self._packages = frozenset(packages)
        self._names = names
        self._set = frozenset(names)
        self._known: dict[type, tuple[Any, ...]] = {}
        # One expression: it is looked at in every transaction, and a loop over the names takes five times as long.
        compared = " and ".join(f"cls.{name} is known[{index}]" for index, name in enumerate(names))
        self._are: Callable[[type, tuple[Any, ...]], bool] = eval(f"lambda cls, known: {compared}")

    def of(self, thing: Any) -> bool:
        """Tell whether these methods of an object are the package's own, on its class and on itself."""
        cls = type(thing)
        return self.of_class(cls) and (not cls.__dictoffset__ or vars(thing).keys().isdisjoint(self._set))

    def of_class(self, cls: type) -> bool:
        """Tell whether these methods of a class are the package's own."""
        known = self._known.get(cls)
        if known is not None and self._are(cls, known):
            return True
        looked_up: Any = cls.__getattribute__
        if looked_up is not object.__getattribute__ or not all(hasattr(cls, name) for name in self._names):
            return False
        found = tuple(getattr(cls, name) for name in self._names)
        if not all(_package(method) in self._packages for method in found):
            return False
        self._known[cls] = found
        return True


def own_function(cls: type, name: str) -> Any:
    """Return a method of a class if it is its package's own, else something that no class has as a method.

    For a check that is made so often that even a call would be too much: ``type(thing).name is`` this.
    """
    method = getattr(cls, name)
    return method if _package(method) == cls.__module__.partition(".")[0] else object()


def _package(method: Any) -> str:
    """Return the package that a method was written in; nothing for one that is no plain method."""
    kind = type(method)
    module = ""
    if kind is MethodDescriptorType:
        module = method.__objclass__.__module__
    elif kind is FunctionType or kind.__name__ == "cython_function_or_method":
        module = method.__globals__.get("__name__", "")  # one that was made by exec() has none
    return module.partition(".")[0]
