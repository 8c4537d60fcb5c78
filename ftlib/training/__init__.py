"""Training one stage: fast, resumable, the same bits for the same seed."""
