"""The commands of `ftlib`, a module a group; each imports what it works with inside its functions."""
