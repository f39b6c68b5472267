"""The public names are frozen here: a change of this list is a change users see, and goes into the CHANGELOG."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio as stock

import forebay

SQLALCHEMY_20 = sqlalchemy.__version__.startswith("2.0.")

PUBLIC = {
    # Ours, in the place of SQLAlchemy's.
    "AsyncConnection",
    "AsyncEngine",
    "AsyncSession",
    "AsyncSessionTransaction",
    "AsyncTransaction",
    "async_engine_from_config",
    "async_scoped_session",
    "async_sessionmaker",
    "create_async_engine",
    "create_async_pool_from_url",
    # SQLAlchemy's own.
    "AsyncAttrs",
    "AsyncMappingResult",
    "AsyncResult",
    "AsyncScalarResult",
    "AsyncTupleResult",
    "async_object_session",
    "async_session",
    "close_all_sessions",
}
# What SQLAlchemy has no word for.
OURS_ALONE = {
    "Credential",
    "Credentials",
    "__version__",
    "async_url",
    "create_sync_engine",
    "engine_from_env",
    "install",
    "lazy_relationships",
    "log_sql",
    "preset",
    "read_only",
    "settings_from_env",
    "sync_url",
    "uninstall",
}

REPLACED = sorted(name for name in PUBLIC if getattr(forebay, name) is not getattr(stock, name, None))
CLASSES = [name for name in REPLACED if isinstance(getattr(forebay, name), type)]


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_the_public_names_are_these() -> None:
    """Goal: no name appears or goes unnoticed. Method: the list above against `__all__` and `dir()`."""
    assert set(forebay.__all__) == PUBLIC | OURS_ALONE
    assert set(dir(forebay)) >= PUBLIC | OURS_ALONE
    assert forebay.__all__ == sorted(forebay.__all__)


def test_every_name_of_sqlalchemys_package_can_be_imported_from_ours() -> None:
    """Goal: changing the module in an import is enough. Method: all that SQLAlchemy's package has, on this version."""
    theirs = {name for name in public(stock) if not isinstance(getattr(stock, name), ModuleType)}
    assert theirs
    assert theirs <= set(forebay.__all__)


@pytest.mark.parametrize("name", sorted(OURS_ALONE))
def test_a_name_of_ours_alone_is_none_of_sqlalchemys(name: str) -> None:
    """Goal: whoever reads an import knows whose it is. Method: SQLAlchemy's packages have no such name."""
    assert name == "__version__" or not hasattr(stock, name)
    assert name == "__version__" or not hasattr(sqlalchemy, name)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    """Goal: the lazy table behaves like a module. Method: a misspelt name."""
    with pytest.raises(AttributeError, match="module 'forebay' has no attribute 'create_engine_async'"):
        forebay.create_engine_async  # noqa: B018


@pytest.mark.parametrize("name", ["AsyncSession", "async_sessionmaker", "async_scoped_session", "AsyncConnection"])
def test_a_class_has_the_public_attributes_of_sqlalchemys_and_no_other(name: str) -> None:
    """Goal: nothing a user writes against ours fails on SQLAlchemy's; going back stays one line.

    Method: compare what `dir()` shows.
    """
    assert public(getattr(forebay, name)) == public(getattr(stock, name))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_a_subclass_of_sqlalchemys_with_all_it_has(name: str) -> None:
    """Goal: every check by class and every method works. Method: compare class and attributes."""
    ours, theirs = getattr(forebay, name), getattr(stock, name)
    assert issubclass(ours, theirs)
    assert ours.__name__ == theirs.__name__
    assert public(ours) >= public(theirs)


@pytest.mark.parametrize("name", CLASSES)
def test_every_overridden_method_takes_what_sqlalchemys_takes(name: str) -> None:
    """Goal: no keyword is lost in an override. Method: parameters, unless they fall into **kw."""
    ours, theirs = getattr(forebay, name), getattr(stock, name)
    for attribute, method in vars(ours).items():
        original = inspect.getattr_static(theirs, attribute, None)
        if not inspect.isfunction(method) or not inspect.isfunction(original):
            continue
        parameters = inspect.signature(method).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        assert set(inspect.signature(original).parameters) <= set(parameters), attribute
        if not attribute.startswith("__"):
            # Whoever asks (a mock with a spec) asks by name. `async with` awaits whatever it gets.
            assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(original), attribute


@pytest.mark.parametrize("name", sorted(set(REPLACED) - set(CLASSES)))
def test_a_function_takes_what_sqlalchemys_takes(name: str) -> None:
    """Goal: calls stay as they are. Method: names, order and defaults of the parameters."""
    ours = inspect.signature(getattr(forebay, name)).parameters.values()
    theirs = inspect.signature(getattr(stock, name)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


def test_the_version_is_the_one_installed() -> None:
    """Goal: bug reports name the right version. Method: the package's metadata."""
    from importlib.metadata import version

    assert forebay.__version__ == version("forebay")
