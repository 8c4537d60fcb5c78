"""Prefect flows and the command line: order only, no logic."""
