"""Sessions: subclasses of SQLAlchemy's own, same parameters, no public attribute added."""

from forebay._sqlalchemy.missing_greenlet import explain_attribute_loads
from forebay.session._session import (
    AsyncSession,
    AsyncSessionTransaction,
    async_scoped_session,
    async_sessionmaker,
)
from forebay.session.lazy_loading import LazyRelationship, lazy_relationships
from forebay.session.readonly import ReadOnlySessionError, read_only
from forebay.session.task_logging import log_sql

__all__ = [
    "AsyncSession",
    "AsyncSessionTransaction",
    "LazyRelationship",
    "ReadOnlySessionError",
    "async_scoped_session",
    "async_sessionmaker",
    "lazy_relationships",
    "log_sql",
    "read_only",
]

explain_attribute_loads(AsyncSession)
