"""`unposed models`."""

import json
import sys

from unposed.cli.app import COMMON, CommonOptions, app


@app.command
def models(common: CommonOptions = COMMON) -> None:
    """Every model by name: system, size, licence of its weights, and whether it is on this machine.

    Args:
        common: Options of every verb.
    """
    from rich.console import Console
    from rich.table import Table

    from unposed.models.registry import ListedModel, list_models

    rows = list_models()
    if common.json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    table = Table(*(field.replace("_", " ") for field in ListedModel._fields))
    for row in rows:
        table.add_row(*(("yes" if value else "no") if isinstance(value, bool) else str(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
