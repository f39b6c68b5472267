"""The checks, one per file, in the order of the report."""

from __future__ import annotations

from typing import Final

from forebay.cli.doctor.checks.account import ACCOUNT
from forebay.cli.doctor.checks.application_name import APPLICATION_NAME
from forebay.cli.doctor.checks.budget import BUDGET
from forebay.cli.doctor.checks.echo import ECHO
from forebay.cli.doctor.checks.expire_on_commit import EXPIRE_ON_COMMIT
from forebay.cli.doctor.checks.idle_in_transaction import IDLE_IN_TRANSACTION
from forebay.cli.doctor.checks.lazy_relationships import LAZY_RELATIONSHIPS
from forebay.cli.doctor.checks.pooler import POOLER
from forebay.cli.doctor.checks.pre_ping import PRE_PING
from forebay.cli.doctor.checks.reachable import REACHABLE
from forebay.cli.doctor.checks.recycle import RECYCLE
from forebay.cli.doctor.checks.role import ROLE
from forebay.cli.doctor.checks.server_version import SERVER_VERSION
from forebay.cli.doctor.checks.statement_timeout import STATEMENT_TIMEOUT
from forebay.cli.doctor.checks.tls import TLS
from forebay.cli.doctor.checks.url import URL_CHECK
from forebay.cli.doctor.model import Check

__all__ = ["CHECKS"]

CHECKS: Final[tuple[Check, ...]] = (
    URL_CHECK,
    REACHABLE,
    TLS,
    SERVER_VERSION,
    ROLE,
    ACCOUNT,
    POOLER,
    BUDGET,
    RECYCLE,
    PRE_PING,
    STATEMENT_TIMEOUT,
    IDLE_IN_TRANSACTION,
    APPLICATION_NAME,
    ECHO,
    EXPIRE_ON_COMMIT,
    LAZY_RELATIONSHIPS,
)
