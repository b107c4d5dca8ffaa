"""Backups that are proved: dump, copies, verification, drill, restore. It runs in a child process.

Nothing heavy is imported here or by `form`, `errors` and `stores.base`: settings, the daemon and
the command line read those. Vendors' libraries are imported by the module that uses them, inside.
"""
