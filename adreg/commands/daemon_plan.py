"""daemon plan: what would happen now by the rules of adreg.toml, and why."""

from __future__ import annotations

from adreg.commands.options import AsJson
from adreg.commands.output import notice, print_json, print_table
from adreg.commands.run import open_workspace


def plan(as_json: AsJson = False) -> None:
    """Show what the daemon would do now by adreg.toml, and why; do nothing."""
    from adreg.service.rules.checking import checked
    from adreg.service.rules.file import read_rules
    from adreg.service.watch.planning import plan_now

    ws = open_workspace()
    rules = checked(ws, read_rules(ws.settings), notice)
    views = [action.to_json() for action in plan_now(ws, rules)]
    if as_json:
        print_json(views)
        return
    if not views:
        notice("nothing: no folders yet, and no merge sets")
        return
    rows = [[v["action"], v["name"], v["reason"]] for v in views]
    print_table("next", ["action", "name", "why"], rows)
