"""What watches a machine and writes it down, in formats that other programs read."""
