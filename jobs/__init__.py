"""What is done on a schedule; `jobs.schedule` lists it.

Nothing is imported here: whatever runs as a child of its own lies in this package too.
"""
