"""The `perco` command; nothing imports it."""
