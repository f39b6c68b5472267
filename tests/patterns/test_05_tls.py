"""TLS with a certificate authority of one's own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from sqlalchemy import exc, text

from forebay import create_async_engine
from forebay.testing.servers.certificates import make_certificates
from forebay.testing.servers.postgres import PostgresServer

ENCRYPTED = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


async def test_asyncpg_with_a_context(postgres_tls: PostgresServer) -> None:
    """Goal: the documented way. Method: a context for the authority; the server says whether it is encrypted."""
    ssl_context = ssl.create_default_context(cafile=str(postgres_tls.ca))
    engine = create_async_engine(postgres_tls.url("asyncpg"), connect_args={"ssl": ssl_context})
    async with engine.connect() as connection:
        assert await connection.scalar(ENCRYPTED) is True
    await engine.dispose()


async def test_asyncpg_with_a_word_in_the_url(postgres_tls: PostgresServer) -> None:
    """Goal: `?ssl=require` encrypts and does not verify. Method: no authority is given."""
    engine = create_async_engine(postgres_tls.url("asyncpg", ssl="require"))
    async with engine.connect() as connection:
        assert await connection.scalar(ENCRYPTED) is True
    await engine.dispose()


async def test_psycopg_with_libpqs_words(postgres_tls: PostgresServer) -> None:
    """Goal: the same on psycopg. Method: verification in full, by URL."""
    url = postgres_tls.url("psycopg", sslmode="verify-full", sslrootcert=str(postgres_tls.ca))
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        assert await connection.scalar(ENCRYPTED) is True
    await engine.dispose()


async def test_a_server_of_another_authority_is_refused(postgres_tls: PostgresServer, tmp_path: Path) -> None:
    """Goal: verification is real. Method: trust an authority that did not sign the server's certificate."""
    other = make_certificates(tmp_path, ["localhost"])
    context = ssl.create_default_context(cafile=str(other.ca))
    engine = create_async_engine(postgres_tls.url("asyncpg"), connect_args={"ssl": context})
    with pytest.raises((ssl.SSLError, exc.DBAPIError), match="certificate verify failed"):
        await engine.connect()
    await engine.dispose()


@pytest.mark.parametrize("query", [{"sslmode": "require"}, {"sslmode": "verify-full", "channel_binding": "require"}])
async def test_asyncpg_with_libpqs_words(postgres_tls: PostgresServer, query: dict[str, str]) -> None:
    """Goal: the URLs that platforms hand out work as they are. Method: their query arguments."""
    if query["sslmode"] == "verify-full":
        query = {**query, "sslrootcert": str(postgres_tls.ca)}
    engine = create_async_engine(postgres_tls.url("asyncpg", **query))
    async with engine.connect() as connection:
        assert await connection.scalar(ENCRYPTED) is True
    await engine.dispose()
