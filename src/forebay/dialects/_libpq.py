"""The words of a PostgreSQL URL, which are libpq's, and what they mean to a driver that is not libpq.

A word that has no meaning for a driver is dropped where leaving it out changes nothing, and refused where it would.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from sqlalchemy import URL, exc

from forebay.dialects._tls import SSL_MODES, SYSTEM, Certificates, checked_mode, client_context
from forebay.errors import ForebayWarning

DEFAULT_PORT: Final = 5432

#: ``?ssl=`` as other drivers' URLs have it -> libpq's mode. ``true`` is ``require`` in libpq too.
_SSL_WORDS: Final = {
    "true": "require",
    "1": "require",
    "on": "require",
    "yes": "require",
    "no-verify": "require",
    "false": "disable",
    "0": "disable",
    "off": "disable",
    "no": "disable",
}

#: Each of these is libpq's own and says nothing to another driver, as long as it has one of the harmless values.
_WITHOUT_MEANING: Final[Mapping[str, frozenset[str]]] = {
    "gssencmode": frozenset(("disable", "prefer")),
    "sslcompression": frozenset(("0", "1")),
    "sslsni": frozenset(("1",)),
    "requirepeer": frozenset(),
}

_TLS_WORDS: Final = frozenset(
    (
        *("sslmode", "ssl", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding"),
    )
)

#: What :func:`to_asyncpg` takes out of a URL's query, beside what asyncpg knows itself.
ASYNCPG_WORDS: Final = (
    _TLS_WORDS
    | frozenset(_WITHOUT_MEANING)
    | frozenset(
        (
            *("application_name", "fallback_application_name", "options", "client_encoding", "connect_timeout"),
            *("dbname", "pgbouncer", "statement_cache_size"),
        )
    )
)

#: What :func:`to_psycopg` takes out of a URL's query, beside what libpq knows itself.
PSYCOPG_WORDS: Final = frozenset(("ssl", "prepared_statement_cache_size", "statement_cache_size", "pgbouncer"))

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:]*)(?::(?P<port>\d*))?")


def one(query: Mapping[str, str | Sequence[str]], name: str) -> str | None:
    """Return the value of ``name`` in a URL's query, the last one where it stands there more than once."""
    value = query.get(name)
    return value if value is None or isinstance(value, str) else value[-1]


# Several hosts


def names_no_single_host(url: URL) -> bool:
    """Tell whether a list of hosts or a socket's folder stands where a URL has its host."""
    return url.host is not None and ("," in url.host or url.host[:3].upper() == "%2F")


def with_each_port(url: URL) -> URL:
    """Return ``url`` with several hosts in the query, each with its own port; unchanged where it has one host.

    ``host1,host2:5433`` is read as in libpq's URLs: a host without a port has the default one. So is
    ``%2Frun%2Fpostgresql``, the folder of a socket.
    """
    asked = url.query.get("host")
    if url.host is not None and url.host[:3].upper() == "%2F" and "," not in url.host:
        return url.set(host=unquote(url.host))
    if url.host is not None and "," in url.host:
        *others, last = url.host.split(",")
        hosts = [*others, f"{last}:{url.port}" if url.port is not None else last]
        return _spread(url, hosts)
    if isinstance(asked, tuple) and len(asked) > 1:
        ported = [":" in host for host in asked if not host.startswith(("/", "["))]
        # SQLAlchemy's own way of writing it; where some have a port and some have not, it is for it to refuse that.
        return url if any(ported) and not all(ported) else _spread(url, asked)
    if isinstance(asked, str) and "," in asked and "port" not in url.query:
        return _spread(url, asked.split(","))
    return url


def split_hosts(text: str) -> list[str] | None:
    """Return the hosts of ``text`` as ``host:port`` each, or None where it is no list of hosts."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d+))?", part)
        if match is None:
            return None
        found.append(part)
    return found


def _spread(url: URL, hosts: Sequence[str]) -> URL:
    if not all(hosts):
        raise exc.ArgumentError("a list of several hosts in the URL has an empty place")
    query = {**url.query, "host": tuple(_with_port(host) for host in hosts)}
    # Not url.set(): None would mean "as it is".
    return URL.create(url.drivername, url.username, url.password, database=url.database, query=query)


def _with_port(token: str) -> str:
    if token.startswith("/"):
        return f"{token}:{DEFAULT_PORT}"
    match = _HOST_AND_PORT.fullmatch(token)
    if match is None:
        raise exc.ArgumentError("a host in the URL is not of the form host:port")
    # SQLAlchemy splits at the colon, so an address of version 6 cannot stand in a list of hosts.
    if token.startswith("["):
        raise exc.ArgumentError("an IPv6 address cannot be one of several hosts in a URL; give it a name")
    return f"{match['host']}:{match['port'] or DEFAULT_PORT}"


# asyncpg


def to_asyncpg(query: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    """Return asyncpg's arguments for the words of ``query`` that are in ``ASYNCPG_WORDS``.

    Raises:
        sqlalchemy.exc.ArgumentError: A value is not one of its word's, or asyncpg cannot do what it asks for.

    Warns:
        ForebayWarning: ``channel_binding=require`` is asked for, which asyncpg has not, and no certificate is verified
            that would do the same.
    """
    arguments: dict[str, Any] = {}
    settings: dict[str, str] = {}
    for name, settled in _WITHOUT_MEANING.items():
        value = one(query, name)
        if value is not None and value not in settled:
            raise exc.ArgumentError(f"{name}, in the URL: asyncpg cannot do that, psycopg can")
    if application := one(query, "application_name") or one(query, "fallback_application_name"):
        settings["application_name"] = application
    for word in ("options", "client_encoding"):
        value = one(query, word)
        if value is not None:
            # libpq sends these to the server as they are, at the start, and so does asyncpg.
            settings[word] = value
    if settings:
        arguments["server_settings"] = settings
    if (database := one(query, "dbname")) is not None:
        arguments["database"] = database
    if (seconds := one(query, "connect_timeout")) is not None:
        # libpq: 0 is no limit.
        arguments["timeout"] = float(seconds) if float(seconds) > 0 else None
    if (size := one(query, "statement_cache_size")) is not None:
        arguments["statement_cache_size"] = int(size)
    if no_prepared_statements(query):
        arguments["statement_cache_size"] = arguments["prepared_statement_cache_size"] = 0
    arguments.update(_asyncpg_tls(query))
    return arguments


def _asyncpg_tls(query: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if (negotiation := one(query, "sslnegotiation")) is not None:
        if negotiation not in ("postgres", "direct"):
            raise exc.ArgumentError("sslnegotiation, in the URL, must be postgres or direct")
        arguments["direct_tls"] = negotiation == "direct"
    mode = ssl_mode(query)
    files = Certificates(
        ca=one(query, "sslrootcert"),
        cert=one(query, "sslcert"),
        key=one(query, "sslkey"),
        key_password=one(query, "sslpassword"),
        crl=one(query, "sslcrl"),
    )
    lowest, highest = one(query, "ssl_min_protocol_version"), one(query, "ssl_max_protocol_version")
    if files.ca == SYSTEM:
        # libpq: trusting every authority of the system without looking at the name would be trusting everybody.
        if mode not in (None, "verify-full"):
            raise exc.ArgumentError("sslrootcert=system, in the URL, needs sslmode=verify-full")
        mode = "verify-full"
    _check_channel_binding(one(query, "channel_binding"), mode, files)
    if files == Certificates() and lowest is None and highest is None:
        if mode is not None:
            # asyncpg reads the mode as libpq does, ~/.postgresql and the PGSSL… variables included.
            arguments["ssl"] = mode
    elif mode in (None, "allow", "prefer"):
        # Only asyncpg itself can go on without TLS; it takes files for these modes in a DSN alone.
        raise exc.ArgumentError(
            f"certificates in the URL have no effect with sslmode={mode or 'prefer'}"
            f"{'' if mode else ', which is the default'}: a connection without TLS would be accepted. "
            "Write sslmode=verify-full, verify-ca or require"
        )
    elif mode != "disable":
        arguments["ssl"] = client_context(mode, files, minimum=lowest, maximum=highest, alpn="postgresql")
    else:
        arguments["ssl"] = mode
    return arguments


def _check_channel_binding(asked: str | None, mode: str | None, files: Certificates) -> None:
    if asked not in (None, "disable", "prefer", "require"):
        raise exc.ArgumentError("channel_binding, in the URL, must be disable, prefer or require")
    if asked != "require" or mode in ("verify-ca", "verify-full") or (mode == "require" and files.ca is not None):
        return
    warnings.warn(
        "channel_binding=require is in the URL, but asyncpg has no channel binding, and the server's certificate is "
        "not verified either: somebody in between would not be noticed. Add sslmode=verify-full&sslrootcert=system "
        "(or the provider's CA file), or use psycopg.",
        ForebayWarning,
        stacklevel=2,
    )


# psycopg


def to_psycopg(query: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    """Return psycopg's arguments for the words of ``query`` that are in ``PSYCOPG_WORDS``: those libpq does not know.

    Raises:
        sqlalchemy.exc.ArgumentError: A value is not one of its word's.
    """
    arguments: dict[str, Any] = {}
    mode = ssl_mode(query)
    if mode is not None:
        arguments["sslmode"] = mode
    if no_prepared_statements(query):
        arguments["prepare_threshold"] = None
    return arguments


# Both


def ssl_mode(query: Mapping[str, str | Sequence[str]]) -> str | None:
    """Return libpq's mode as ``sslmode`` or ``ssl`` has it in a URL's query.

    Raises:
        sqlalchemy.exc.ArgumentError: It is none of libpq's, or the two differ.
    """
    found = set()
    if (value := one(query, "sslmode")) is not None:
        found.add(checked_mode("sslmode", value))
    if (value := one(query, "ssl")) is not None:
        word = _SSL_WORDS.get(value.strip().lower())
        if word is None and value.strip().lower().replace("_", "-") not in SSL_MODES:
            raise exc.ArgumentError(f"ssl, in the URL, must be true, false or one of {', '.join(SSL_MODES)}")
        found.add(word or checked_mode("ssl", value))
    if len(found) > 1:
        raise exc.ArgumentError(f"ssl and sslmode, in the URL, contradict each other: {' and '.join(sorted(found))}")
    return found.pop() if found else None


def no_prepared_statements(query: Mapping[str, str | Sequence[str]]) -> bool:
    """Tell whether a URL says, in one of the usual ways, that prepared statements must not be kept.

    Raises:
        ValueError: A size is no number.
    """
    for name in ("prepared_statement_cache_size", "statement_cache_size"):
        size = one(query, name)
        if size is not None and int(size) == 0:
            return True
    return one(query, "pgbouncer") in ("true", "1")
