"""Side-by-side measurements against plain peers; anyone can run them."""
