"""How a SQLite connection is spoken to: one trip into its thread per statement, and transactions that are real."""
