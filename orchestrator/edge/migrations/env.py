"""Runs revisions on the connection that `migrate.py` hands in, inside its transaction."""

from alembic import context

from orchestrator.edge.tables import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
context.run_migrations()
