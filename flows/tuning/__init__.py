"""`ftlib tune`: trials of one experiment, each a pass through the steps that lead to its score on validation."""
