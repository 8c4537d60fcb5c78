"""Preparing data: collect, clean, split, encode."""
