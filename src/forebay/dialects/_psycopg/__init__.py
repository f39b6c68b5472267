"""How a psycopg connection is spoken to so that a transaction costs no round trip of its own."""
