"""TLS contexts with libpq's meaning, for drivers that take an ``ssl.SSLContext``.

Built once per engine and not per connection: reading a provider's bundle of a hundred certificates takes milliseconds
in which the event loop stands still.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import exc

#: libpq's modes, weakest first.
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

#: What libpq takes for "the certificates this system trusts".
SYSTEM: Final = "system"


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of a TLS connection.

    Attributes:
        ca: Certificates of the authorities trusted, ``"system"`` for those of the system, or None.
        ca_folder: A folder of such certificates, hashed as OpenSSL wants it.
        cert: The client's certificate.
        key: Its key; None where it is in the same file.
        key_password: What the key is encrypted with.
        crl: Revoked certificates.
    """

    ca: str | None = None
    ca_folder: str | None = None
    cert: str | None = None
    key: str | None = None
    key_password: str | None = None
    crl: str | None = None


class EnforcedContext(ssl.SSLContext):
    """A context that stands for "encrypted or not at all", for a driver that would go on without."""


def client_context(
    mode: str,
    files: Certificates,
    *,
    minimum: str | None = None,
    maximum: str | None = None,
    alpn: str | None = None,
    ciphers: str | None = None,
) -> ssl.SSLContext:
    """Return a context for ``mode``.

    Args:
        mode: ``require``, ``verify-ca`` or ``verify-full``. ``require`` verifies the certificate only where a CA is
            given, and no host name: libpq's rule. ``prefer`` is ``require`` in a context that is not enforced.
        files: Certificates. A mode that verifies takes the system's where no CA is given.
        minimum: Lowest version, as ``TLSv1.2``, which is the default.
        maximum: Highest version.
        alpn: Protocol to announce.
        ciphers: OpenSSL's list of ciphers.

    Raises:
        sqlalchemy.exc.ArgumentError: A file cannot be read, or a version is unknown. The message names the file.
    """
    verify = mode in ("verify-ca", "verify-full") or files.ca is not None or files.ca_folder is not None
    context = (ssl.SSLContext if mode == "prefer" else EnforcedContext)(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    context.minimum_version = _version(minimum or "TLSv1.2", "lowest")
    if maximum is not None:
        context.maximum_version = _version(maximum, "highest")
    if verify and files.ca in (None, SYSTEM) and files.ca_folder is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    elif verify:
        ca = None if files.ca in (None, SYSTEM) else _path(files.ca)
        with _Reading("CA certificates", ca or files.ca_folder):
            context.load_verify_locations(cafile=ca, capath=_path(files.ca_folder))
    if files.crl is not None:
        with _Reading("revoked certificates", files.crl):
            context.load_verify_locations(cafile=_path(files.crl))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if files.cert is not None:
        with _Reading("client certificate", files.cert):
            password = files.key_password or ""
            context.load_cert_chain(str(_path(files.cert)), _path(files.key), lambda: password)
    if ciphers is not None:
        with _Reading("list of ciphers", None):
            context.set_ciphers(ciphers)
    if alpn is not None and ssl.HAS_ALPN:
        context.set_alpn_protocols([alpn])
    return context


def checked_mode(name: str, value: str) -> str:
    """Return ``value`` as one of libpq's modes.

    Raises:
        sqlalchemy.exc.ArgumentError: It is none.
    """
    mode = value.strip().lower().replace("_", "-")
    if mode not in SSL_MODES:
        raise exc.ArgumentError(f"{name}, in the URL, must be one of {', '.join(SSL_MODES)}")
    return mode


def _version(name: str, which: str) -> ssl.TLSVersion:
    try:
        return ssl.TLSVersion[name.replace(".", "_")]
    except KeyError:
        raise exc.ArgumentError(f"the {which} TLS version must be one of TLSv1.2, TLSv1.3") from None


def _path(name: str | None) -> str | None:
    return None if name is None else str(Path(name).expanduser())


class _Reading:
    """Turns what the standard library raises for a bad file into an error that names the file."""

    def __init__(self, what: str, file: str | None) -> None:
        self._what = f"{what} {file}" if file is not None else what

    def __enter__(self) -> None:
        return None

    def __exit__(self, type_: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise exc.ArgumentError(f"TLS: the file of the {self._what} does not exist") from None
        if isinstance(error, (OSError, ValueError)):
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
            raise exc.ArgumentError(f"TLS: the {self._what} cannot be used: {reason}") from None
