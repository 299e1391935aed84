"""The `dualpath` command; one file a subcommand."""
