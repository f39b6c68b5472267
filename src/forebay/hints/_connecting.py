"""Errors of getting to the server: driver, URL, network, TLS, limits."""

from __future__ import annotations

import re
import sys

from forebay.drivers import ours, packages
from forebay.hints._entry import Hint

_DRIVERS = "|".join(re.escape(name) for name in sorted(packages() - sys.stdlib_module_names))
_EXTRAS = ", ".join(driver.extra for driver in ours() if driver.extra not in (None, "asyncpg"))

CONNECTING = (
    Hint(
        "driver-not-installed",
        ("No module named 'asyncpg'", "ModuleNotFoundError: No module named 'asyncpg'"),
        (rf"No module named '?(?:{_DRIVERS})\b", r"driver \S+ is not installed"),
        "The URL names a driver that is not installed in this Python environment.",
        (
            f"Install it with its extra, such as pip install 'forebay[asyncpg]' ({_EXTRAS}).",
            "Check that the program runs in the environment you installed into: python -m pip show asyncpg.",
        ),
    ),
    Hint(
        "url-unparsable",
        (
            "Could not parse SQLAlchemy URL from given URL string",
            "Could not parse rfc1738 URL from string",
        ),
        (r"Could not parse (?:SQLAlchemy|rfc1738) URL",),
        "The string is no database URL: often it is empty or quoted twice, or its password has @ / : # ? or % in it "
        "that is not percent-encoded.",
        (
            "Build the URL with sqlalchemy.URL.create(), or encode the password with urllib.parse.quote(password, "
            "safe=''); quote_plus is wrong, since + is not decoded.",
            "Print whether the environment variable is set at all before you look for more.",
        ),
        """\
from sqlalchemy import URL

from forebay import create_async_engine

url = URL.create("postgresql+asyncpg", "app", "p@ss/word", "localhost", 5432, "shop")
engine = create_async_engine(url)
""",
    ),
    Hint(
        "async-driver-required",
        ("The asyncio extension requires an async driver to be used.",),
        (r"asyncio extension requires an async driver",),
        "The URL names a driver that blocks the event loop, such as psycopg2 or sqlite3, or none, which means the "
        "blocking default.",
        (
            "Name the async driver in the URL: postgresql+asyncpg://, mysql+asyncmy:// or sqlite+aiosqlite://.",
            "Where the URL is given to you, turn it: forebay.async_url(url).",
        ),
        """\
from forebay import async_url, create_async_engine

engine = create_async_engine(async_url("postgresql+psycopg2://app@localhost/shop"))
""",
    ),
    Hint(
        "connection-refused",
        (
            "[Errno 111] Connect call failed ('127.0.0.1', 5432)",
            "ConnectionRefusedError: [Errno 111] Connection refused",
            'connection to server at "127.0.0.1", port 5432 failed: Connection refused',
            "Can't connect to MySQL server on '127.0.0.1'",
        ),
        (
            r"Connection ?refused",
            r"Connect call failed \(.*\)",
            r"Multiple exceptions: \[Errno 111\].*",
            r"\[?Errno (?:111|61|10061)\]?",
            r"Can't connect to (?:local )?(?:MySQL|MariaDB|server).*",
        ),
        "Nobody listens at that host and port: the server is down or still starting, or the address is another one.",
        (
            "Check host and port as this process sees them; inside a container, localhost is the container itself.",
            "Wait for the server where it starts together with the application: forebay wait URL.",
        ),
    ),
    Hint(
        "server-starting",
        (
            "the database system is starting up",
            "the database system is shutting down",
            "CannotConnectNowError: the database system is starting up",
        ),
        (
            r"the database system is (?:starting up|shutting down|in recovery mode)",
            r"the database system is not (?:yet )?accepting connections.*",
            r"CannotConnectNowError.*",
        ),
        "PostgreSQL is there and lets nobody in yet: it starts, recovers after a crash, or is about to stop.",
        (
            "Wait for it where it starts together with the application: forebay wait URL. A running pool asks again by "
            "itself, one connection at a time; repeat what failed.",
            "A standby that says so for ever has hot_standby=off, or waits for its primary: the server's log tells.",
        ),
    ),
    Hint(
        "host-not-found",
        ("socket.gaierror: [Errno -2] Name or service not known", "failed to resolve host"),
        (
            r"gaierror.*",
            r"Name or service not known",
            r"nodename nor servname provided",
            r"Temporary failure in name resolution",
            r"failed to resolve host.*",
            r"No address associated with hostname",
        ),
        "The host name in the URL cannot be resolved from this machine.",
        (
            "Check the name for typing errors and for pieces of an unencoded password: its part behind an @ becomes "
            "the host.",
            "A name of a private network or of Docker Compose is known inside that network only.",
        ),
    ),
    Hint(
        "authentication-failed",
        (
            'password authentication failed for user "app"',
            "no pg_hba.conf entry for host",
            "Access denied for user 'app'@'localhost'",
        ),
        (
            r"password authentication failed.*",
            r"no pg_hba\.conf entry.*",
            r"Access denied for user.*",
            r"fe_sendauth: no password supplied",
            r"InvalidPasswordError.*",
        ),
        "The server answered and refused this account: wrong user or password, or no rule lets it in from here (with "
        "or without TLS).",
        (
            "Compare user and password with what works in psql or mysql; encode the password in a URL.",
            "With 'no pg_hba.conf entry ... no encryption' the server wants TLS: add ?sslmode=require.",
            "Passwords that expire (IAM) belong in credentials=, a callable.",
        ),
    ),
    Hint(
        "tls-certificate",
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",
            "SSL error: certificate verify failed",
        ),
        (
            r"CERTIFICATE_VERIFY_FAILED.*",
            r"certificate verify failed.*",
            r"SSLCertVerificationError.*",
            r"unable to get local issuer certificate",
            r"self-signed certificate.*",
            r"hostname mismatch, certificate is not valid.*",
            r"server certificate for .* does not match host name.*",
            r"root certificate file .* does not exist.*",
        ),
        "The server's certificate was not signed by an authority this process trusts, has expired, or is for another "
        "host name.",
        (
            "Give the provider's CA file: create_async_engine(url, ssl_ca='/etc/ssl/provider-ca.pem'), and connect by "
            "the name that is in the certificate.",
            "Turning verification off (sslmode=require) encrypts, but anybody in between can read along.",
        ),
    ),
    Hint(
        "sslmode-keyword",
        (
            "connect() got an unexpected keyword argument 'sslmode'",
            "TypeError: connect() got an unexpected keyword argument 'sslmode'",
        ),
        (r"unexpected keyword argument '?(?:sslmode|sslrootcert|channel_binding|options)'?",),
        "asyncpg has no argument sslmode: that is libpq's word, which platforms put into the URLs they hand out.",
        (
            "Leave it in the URL: Forebay translates ?sslmode=, ?sslrootcert= and ?channel_binding= for every driver. "
            "In connect_args use asyncpg's own word: {'ssl': 'require'}.",
        ),
        """\
from forebay import create_async_engine

engine = create_async_engine("postgresql+asyncpg://app@localhost/shop?sslmode=require")
""",
        stock="SQLAlchemy's engine hands the URL's query on as it is, so there the URL must say ?ssl=require.",
    ),
    Hint(
        "startup-parameter",
        (
            "unsupported startup parameter: jit",
            "unsupported startup parameter in options: search_path",
        ),
        (r"unsupported startup parameter\S*.*", r"Unsupported startup parameter.*"),
        "A pooler (PgBouncer, Supavisor) stands in between and refuses a server setting sent at the start of the "
        "session, from server_settings, options or the driver's own defaults.",
        (
            "Set it for the account instead, once: ALTER ROLE app SET jit = off, and take it out of server_settings.",
            "Where you run PgBouncer: add the name to ignore_startup_parameters, which drops it.",
        ),
    ),
    Hint(
        "too-many-clients",
        (
            "sorry, too many clients already",
            "TooManyConnectionsError: sorry, too many clients already",
        ),
        (r"sorry, too many clients already",),
        "The PostgreSQL server has no connection left: all pools of all processes together, and everybody else, ask "
        "for more than max_connections.",
        (
            "Count processes * (pool_size + max_overflow) against the server: forebay size URL; then make the pools "
            "smaller or put a pooler in between.",
            "Look for who has them: SELECT application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2.",
        ),
    ),
    Hint(
        "slots-reserved",
        (
            "remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "remaining connection slots are reserved for non-replication superuser connections",
        ),
        (r"remaining connection slots are reserved.*",),
        "All connections of the server that ordinary accounts may have are in use; the last few are kept for its "
        "administrators.",
        (
            "Count processes * (pool_size + max_overflow) against max_connections less what is reserved: forebay size "
            "URL.",
            "Do not connect the application as a superuser to get at the last ones: then nobody can log in to help.",
        ),
    ),
    Hint(
        "too-many-connections",
        (
            "(1040, 'Too many connections')",
            'too many connections for role "app"',
            'too many connections for database "shop"',
        ),
        (
            r"too many connections(?: for (?:role|database).*)?",
            r"has more than '?max_user_connections'?.*",
            r"has exceeded the 'max_user_connections'.*",
        ),
        "The server, or this account or database on it, has a limit of connections, and it is reached.",
        (
            "Count processes * (pool_size + max_overflow) against the limit: forebay size URL.",
            "PostgreSQL: ALTER ROLE or ALTER DATABASE ... CONNECTION LIMIT; MySQL: max_connections and "
            "max_user_connections.",
        ),
    ),
)
