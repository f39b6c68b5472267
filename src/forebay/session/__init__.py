"""Sessions: subclasses of SQLAlchemy's own, same parameters, no public attribute added."""

from forebay.session._session import (
    AsyncSession,
    AsyncSessionTransaction,
    async_scoped_session,
    async_sessionmaker,
)

__all__ = ["AsyncSession", "AsyncSessionTransaction", "async_scoped_session", "async_sessionmaker"]
