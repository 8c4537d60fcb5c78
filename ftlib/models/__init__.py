"""Transformers as this project handles them: fetched, loaded, taken apart, saved."""
