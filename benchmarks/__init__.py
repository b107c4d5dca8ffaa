"""What aion costs and how fast it is, each figure beside a peer or a baseline from the same run."""
