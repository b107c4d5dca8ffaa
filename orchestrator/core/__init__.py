"""What aion decides: pure functions of plain values."""
