"""Which of our dialect classes stands for which of SQLAlchemy's.

:mod:`forebay.drivers` has the table. The key is the exact class: a dialect that a user or another package derived from
SQLAlchemy's keeps its own ways. No driver is imported here, and a dialect module only when a URL asks for it.
"""

from __future__ import annotations

from pkgutil import resolve_name

from sqlalchemy.engine import Dialect

from forebay.drivers import ours

#: Our dialect class -> the class made of it for MariaDB.
_COMBINED: dict[type[Dialect], type[Dialect]] = {}


def adapted_dialect_for(stock: type[Dialect]) -> type[Dialect] | None:
    """Return our dialect class for SQLAlchemy's ``stock``, or None where we have none."""
    key = f"{stock.__module__}:{stock.__qualname__}"
    for driver in ours():
        if driver.stock == key and driver.dialect is not None:
            dialect: type[Dialect] = resolve_name(driver.dialect)
            return dialect
    if stock.__module__ == "sqlalchemy.dialects.mysql.mariadb" and len(stock.__bases__) == 2:
        return _on_mariadb(stock)
    return None


def _on_mariadb(stock: type[Dialect]) -> type[Dialect] | None:
    # For a mariadb:// URL SQLAlchemy makes a class on the spot, of MariaDB's ways and the driver's dialect.
    mariadb, driver = stock.__bases__
    adapted = adapted_dialect_for(driver)
    if adapted is None:
        return None
    combined = _COMBINED.get(adapted)
    if combined is None:
        members = {"supports_statement_cache": True, "__module__": adapted.__module__}
        combined = _COMBINED[adapted] = type(stock.__name__, (mariadb, adapted), members)
    return combined
