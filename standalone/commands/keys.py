"""`ion keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from chassis.access.settings import AccessSettings
from chassis.settings import load, stop
from standalone.commands.options import Json, NoColour
from standalone.commands.running import finish, run

if TYPE_CHECKING:
    from datetime import timedelta


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Make, list and revoke API keys, in the database of DATABASE_URL or ION_STATE_DIR.",
        epilog="Examples:  ion keys create ci --expires 90d   |   ion keys list   |   ion keys revoke 5nUc3vJ8hQ0a",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command(
        epilog='Examples:  ion keys create ci   |   KEY=$(ion keys create "night build" --tier pro --expires 90d)'
    )(create)
    group.command("list", epilog="Examples:  ion keys list   |   ion keys list --json")(list_keys)
    group.command(epilog="Example:  ion keys revoke 5nUc3vJ8hQ0a")(revoke)
    app.add_typer(group, name="keys")


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for, 1 to 100 characters.")],
    tier: Annotated[str, typer.Option(metavar="TIER", help="Whose limits hold, as in ION_RATE_LIMIT_TIERS.")] = "",
    expires: Annotated[
        str | None,
        typer.Option(metavar="PERIOD", help="From when on it opens nothing: 90d, 12h, 30m; by default never."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an API key for ION_AUTH=api-key and print it. It is shown this once and kept nowhere."""
    from standalone import keys

    finish(run(keys.create(_settings(), name, tier, _period(expires), as_json=as_json), as_json=as_json))


def list_keys(no_color: NoColour = False, as_json: Json = False) -> None:
    """List the keys, newest first, those that are revoked or expired too; never what is secret of them."""
    from standalone import keys

    finish(run(keys.list_keys(_settings(), as_json=as_json), as_json=as_json))


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a key, as listed.")], as_json: Json = False
) -> None:
    """Have a key open nothing any more."""
    from standalone import keys

    finish(run(keys.revoke(_settings(), key_id, as_json=as_json), as_json=as_json))


def _settings() -> AccessSettings:
    return load(AccessSettings)


def _period(text: str | None) -> timedelta | None:
    from standalone.keys import parse_period

    try:
        return None if text is None else parse_period(text)
    except ValueError as error:
        stop(f"--expires={text}: {error}")
