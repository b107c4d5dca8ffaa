"""Alembic's environment and the revisions of the tables; used by `migrate.py`'s child only."""
