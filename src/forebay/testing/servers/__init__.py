"""Private database servers for tests and benchmarks: PostgreSQL, MariaDB, PgBouncer."""
