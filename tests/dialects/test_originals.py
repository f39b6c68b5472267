"""Telling a driver's own methods from what somebody has put in their place.

Goal: nothing that stands for a method passes for it, however alike the two are made. Method: a class of the standard
library's in the driver's role, and each way in which tools and users replace a method.
"""

from __future__ import annotations

import functools
import sqlite3
from collections import UserDict
from collections.abc import Callable
from typing import Any
from unittest.mock import create_autospec

import pytest

from forebay.dialects._originals import Originals, own_function

OWN = Originals(("collections",), "copy", "__contains__")


class _Lying:
    """What wrapt makes of a function: it looks like that, says it is that, and equals it."""

    def __init__(self, wrapped: Any) -> None:
        self.__wrapped__ = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    @property
    def __class__(self) -> Any:
        return type(self.__wrapped__)

    @__class__.setter
    def __class__(self, value: Any) -> None: ...

    def __eq__(self, other: object) -> bool:
        return bool(self.__wrapped__ == other)

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self if instance is None else functools.partial(self.__wrapped__, instance)


def _wrapped(plain: Callable[..., Any]) -> Any:
    @functools.wraps(plain)
    def wrapper(self: Any, *args: Any) -> Any:
        return plain(self, *args)

    return wrapper


def test_a_class_and_one_that_overrides_something_else_have_them() -> None:
    class Other(UserDict):  # type: ignore[type-arg]
        def keys(self) -> Any:
            return super().keys()

    for thing in (UserDict(), Other()):
        assert OWN.of(thing)
        assert OWN.of(thing)


@pytest.mark.parametrize("replace", [_wrapped, _Lying, lambda plain: create_autospec(plain)])
def test_a_wrapped_method_of_the_class_is_seen_before_and_after_the_first_look(
    replace: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Derived(UserDict):  # type: ignore[type-arg]
        pass

    for cls in (UserDict, Derived):
        assert OWN.of(cls())
        with monkeypatch.context() as patch:
            patch.setattr(UserDict, "copy", replace(UserDict.copy))
            assert not OWN.of(cls())
            assert not Originals(("collections",), "copy").of(cls())
            assert own_function(UserDict, "copy") is not UserDict.copy
        assert OWN.of(cls())
    assert own_function(UserDict, "copy") is UserDict.copy


def test_a_method_of_a_subclass_or_of_one_object_is_seen() -> None:
    class Derived(UserDict):  # type: ignore[type-arg]
        def copy(self) -> Any:
            return super().copy()

    assert not OWN.of(Derived())
    one = UserDict[str, int]()
    one.copy = one.copy  # type: ignore[method-assign]
    assert not OWN.of(one)
    assert OWN.of(UserDict())


def test_an_object_that_only_passes_calls_on_is_seen() -> None:
    class Proxy:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    assert not OWN.of(Proxy(UserDict()))
    assert not OWN.of(create_autospec(UserDict, instance=True))


def test_methods_of_a_class_written_in_c() -> None:
    class Derived(sqlite3.Connection):
        def commit(self) -> None: ...

    own = Originals(("sqlite3",), "commit", "rollback")
    assert own.of_class(sqlite3.Connection)
    assert not own.of_class(Derived)


def test_a_class_that_looks_its_methods_up_in_a_way_of_its_own_is_seen() -> None:
    class Watching(UserDict):  # type: ignore[type-arg]
        def __getattribute__(self, name: str) -> Any:
            return super().__getattribute__(name)

    assert not OWN.of(Watching())
