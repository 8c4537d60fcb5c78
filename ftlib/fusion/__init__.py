"""Fusions: ways of combining the members' predictions, one a file."""
