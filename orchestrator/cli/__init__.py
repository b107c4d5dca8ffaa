"""The verbs of `aion`, a file for each noun."""
