"""Explaining: which words of a text an answer rests on."""
