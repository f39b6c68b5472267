"""One option for a provider's CA file: the certificate and the host name are verified, whatever the driver calls it."""

from __future__ import annotations

from sqlalchemy import URL, exc

from forebay.dialects import _libpq, _mysql_tls

_WEAK = ("disable", "allow", "prefer")


def with_ca(url: URL, ca: str) -> URL:
    """Return ``url`` with ``ca`` as the authorities to trust and ``verify-full``; ``verify-ca`` in it is kept.

    Args:
        url: A URL of PostgreSQL, MySQL or MariaDB.
        ca: A file of CA certificates, or ``"system"`` for those the system trusts.

    Raises:
        sqlalchemy.exc.ArgumentError: The database has no TLS, or the URL says otherwise about it.
    """
    database = url.get_backend_name()
    if database == "postgresql":
        mode, present, words = _libpq.ssl_mode(url.query), "sslrootcert", {"ssl"}
    elif database in ("mysql", "mariadb"):
        mode, present, words = _mysql_tls.mode_of(url.query), "ssl_ca", set(_mysql_tls.MODE_WORDS)
    else:
        raise exc.ArgumentError(f"ssl_ca is for PostgreSQL, MySQL and MariaDB; {database} has no TLS that we know")
    if mode in _WEAK:
        raise exc.ArgumentError(f"ssl_ca verifies the server, but the URL asks for TLS mode {mode}, which does not")
    if _libpq.one(url.query, present) not in (None, ca):
        raise exc.ArgumentError(f"ssl_ca and {present}, in the URL, name two files of CA certificates")
    url = url.difference_update_query(words & set(url.query))
    if database == "postgresql":
        kept = "verify-ca" if mode == "verify-ca" and ca != "system" else "verify-full"
        return url.update_query_dict({"sslrootcert": ca, "sslmode": kept})
    identity = {"ssl_mode": "VERIFY_CA" if mode == "verify-ca" else "VERIFY_IDENTITY"}
    return url.update_query_dict({"ssl_ca": ca, **identity})
