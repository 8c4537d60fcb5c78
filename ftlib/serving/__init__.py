"""The registered model: packed, and answering raw rows."""
