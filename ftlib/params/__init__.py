"""What a params file says: its typed shape, and how it is read, overridden and explained."""
