"""What the drivers of PostgreSQL share."""
