"""Codecs of PostgreSQL's own types, registered without asking the server what it calls them.

asyncpg before 0.31 looks each of them up: three round trips per codec and new connection, though it has the numbers.
"""

from __future__ import annotations

from typing import Any

from forebay.dialects._asyncpg.parts import PARTS

__all__ = ["knowing_its_types"]


def knowing_its_types(adapted: Any) -> Any:
    """Return what stands for ``adapted`` while SQLAlchemy sets its codecs up; itself where asyncpg needs no help."""
    from asyncpg import introspection

    connection = adapted._connection
    if hasattr(introspection, "TypeRecord") or PARTS.lacking(**{"old connection": connection}):
        return adapted
    return _Adapted(connection)


class _Adapted:
    def __init__(self, connection: Any) -> None:
        self._connection = _Connection(connection)


class _Connection:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def set_type_codec(self, typename: str, *, schema: str, encoder: Any, decoder: Any, format: str) -> None:
        from asyncpg.protocol.protocol import BUILTIN_TYPE_NAME_MAP

        connection = self._connection
        settings = connection._protocol.get_settings()
        oid = BUILTIN_TYPE_NAME_MAP[typename]
        settings.add_python_codec(oid, typename, schema, [], "scalar", encoder, decoder, format)
        # Statements prepared before go by the codecs of then.
        connection._drop_local_statement_cache()
