"""What aion serves over HTTP."""
