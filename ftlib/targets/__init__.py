"""What is predicted for a row, and everything that depends on it alone."""
