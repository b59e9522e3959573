"""Sessions and their turns."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite numbers rows by INTEGER columns alone
_TIME = sa.DateTime(timezone=True)


def _key(length: int) -> sa.types.TypeEngine[str]:
    """Compared byte by byte, whatever the language of the database."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("pk", _NUMBER, sa.Identity(), primary_key=True),
        sa.Column("owner", _key(64), nullable=False),
        sa.Column("session_id", _key(128), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("persona", sa.Text(), nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("covered", _NUMBER, nullable=False),
        sa.UniqueConstraint("owner", "session_id", name="sessions_owner_session_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("sessions_owner_updated_at", "sessions", ["owner", "updated_at", "pk"])
    op.create_index("sessions_updated_at", "sessions", ["updated_at"])
    op.create_table(
        "turns",
        sa.Column("pk", _NUMBER, sa.Identity(), primary_key=True),
        sa.Column("session", _NUMBER, sa.ForeignKey("sessions.pk", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("persona", sa.Text(), nullable=False),
        sa.Column("resonance_key", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("turns_session", "turns", ["session", "pk"])
