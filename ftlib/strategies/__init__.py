"""Strategies: ways of fine-tuning a checkpoint, one a file."""
