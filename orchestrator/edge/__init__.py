"""What aion touches: one outside thing per file."""
