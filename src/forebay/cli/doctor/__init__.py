"""``forebay doctor``: what is wrong with a database URL or an application's engine; it changes nothing."""
