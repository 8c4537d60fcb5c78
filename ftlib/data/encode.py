"""Encoding: rows become token ids once, for every stage that shares the tokenizer."""
