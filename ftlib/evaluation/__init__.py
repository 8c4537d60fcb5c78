"""Measuring members and fusions, and choosing among them."""
