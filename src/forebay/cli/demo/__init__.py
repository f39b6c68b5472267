"""``forebay demo``: a small storefront under concurrent traffic, with its figures and a check of its data."""
