"""The ``forebay`` command: one module or package per subcommand, loaded when it is asked for."""
