"""The words for TLS in a MySQL or MariaDB URL, as the client programs, the drivers and the platforms have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import URL, exc
from sqlalchemy.util import asbool

from forebay.dialects._libpq import one
from forebay.dialects._tls import Certificates, client_context

#: The client programs' modes, and other spellings of them -> libpq's, whose meaning is the same.
_MODES: Final = {
    "disabled": "disable",
    "disable": "disable",
    "false": "disable",
    "0": "disable",
    "preferred": "prefer",
    "prefer": "prefer",
    "required": "require",
    "require": "require",
    "true": "require",
    "1": "require",
    "skip-verify": "require",
    "accept_invalid_certs": "require",
    "verify_ca": "verify-ca",
    "verify-ca": "verify-ca",
    "verify_identity": "verify-full",
    "verify-identity": "verify-full",
    "verify-full": "verify-full",
    "verify_full": "verify-full",
    "strict": "verify-full",
}
#: The words that name a mode.
MODE_WORDS: Final = ("ssl_mode", "ssl-mode", "sslmode", "ssl", "tls", "sslaccept")
_FILE_WORDS: Final = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_key_password", "ssl_cipher")
_SWITCHES: Final = ("ssl_check_hostname", "ssl_verify_cert", "ssl_verify_identity", "ssl_disabled")

#: What :func:`tls_arguments` takes out of a URL's query.
TLS_WORDS: Final = frozenset((*MODE_WORDS, *_FILE_WORDS, *_SWITCHES))


def without_tls_words(url: URL) -> URL:
    """Return ``url`` without what :func:`tls_arguments` reads."""
    return url.difference_update_query(TLS_WORDS & set(url.query))


def tls_arguments(query: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    """Return the driver's ``ssl`` argument for the words of ``query`` that are in ``TLS_WORDS``, if any is.

    Raises:
        sqlalchemy.exc.ArgumentError: A value is not one of its word's, two contradict each other, or a file cannot be
            read.
    """
    mode = mode_of(query)
    if mode in (None, "disable"):
        return {}
    return {"ssl": client_context(mode, files_of(query), ciphers=one(query, "ssl_cipher"))}


def mode_of(query: Mapping[str, str | Sequence[str]]) -> str | None:
    """Return the mode a URL's query asks for, by libpq's name; None where it says nothing of TLS.

    Raises:
        sqlalchemy.exc.ArgumentError: A value is not one of its word's, or two contradict each other.
    """
    named = {_MODES.get(str(one(query, word)).strip().lower(), word) for word in MODE_WORDS if word in query}
    unknown = sorted(named & set(MODE_WORDS))
    if unknown:
        raise exc.ArgumentError(
            f"{unknown[0]}, in the URL, must be DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY"
        )
    switches = {word: _switch(word, value) for word in _SWITCHES if (value := one(query, word)) is not None}
    if switches.pop("ssl_disabled", False):
        named.add("disable")
    if len(named) > 1:
        raise exc.ArgumentError(f"the URL asks for several modes of TLS at once: {' and '.join(sorted(named))}")
    mode = named.pop() if named else None
    if mode is not None and mode != "disable" and not switches:
        return mode
    files = [word for word in _FILE_WORDS if word in query]
    if mode == "disable":
        if files or any(switches.values()):
            raise exc.ArgumentError("the URL switches TLS off, and says how it is to be used")
        return mode
    return _by_switches(mode, switches, has_ca="ssl_ca" in query or "ssl_capath" in query, has_files=bool(files))


def files_of(query: Mapping[str, str | Sequence[str]]) -> Certificates:
    """Return the files a URL's query names."""
    return Certificates(
        ca=one(query, "ssl_ca"),
        ca_folder=one(query, "ssl_capath"),
        cert=one(query, "ssl_cert"),
        key=one(query, "ssl_key"),
        key_password=one(query, "ssl_key_password"),
    )


def _by_switches(mode: str | None, switches: Mapping[str, bool], *, has_ca: bool, has_files: bool) -> str | None:
    verify = switches.get("ssl_verify_cert")
    identity = switches.get("ssl_verify_identity", switches.get("ssl_check_hostname"))
    if verify is False and (identity or has_ca):
        raise exc.ArgumentError("ssl_verify_cert=false, in the URL, contradicts what else it says about certificates")
    if mode is None and not has_files and not switches:
        return None
    # A CA alone verifies the name too, as in SQLAlchemy; only who says so gives that up.
    verifies = verify or identity or has_ca or mode in ("verify-ca", "verify-full")
    if not verifies:
        return mode or "require"
    if mode in ("verify-ca", "verify-full"):
        return {True: "verify-full", False: "verify-ca", None: mode}[identity]
    return "verify-ca" if identity is False else "verify-full"


def _switch(word: str, value: str) -> bool:
    try:
        return asbool(value)
    except ValueError:
        raise exc.ArgumentError(f"{word}, in the URL, must be true or false") from None
