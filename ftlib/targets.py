"""Targets: what is predicted for a row, apart from what the row is.

A problem is an input (a text, a pair of texts...) and a target (one label, a set of labels, a number). All
that depends on the target alone is here, so that problems and fusions share it: reading labels, losses,
scores, decoding, metrics.
"""
