"""Searching: which values of a params file do best on validation. `ftlib tune` is made of it."""
