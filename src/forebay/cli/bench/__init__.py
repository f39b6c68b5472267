"""``forebay bench``: stock SQLAlchemy, the raw driver and Forebay on the same operations, in turns in one process."""
