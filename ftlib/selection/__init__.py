"""Choosing the base model: which candidates can do the problem, whose frozen features fit it, who learns fastest."""
