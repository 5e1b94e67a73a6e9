"""`narthex`: finds the command, loads only that one, and turns what goes wrong into an exit code.

In: the command line. Out: exit code 0 (done, allowed), 1 (said no, found a fault), 2 (misused).
Proof: `tests/cli/test_main.py`.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from narthex import FORM, __version__

COMMANDS = {
    "serve": ("narthex.cli.serve:serve", "Run the gateway."),
    "check": ("narthex.cli.check:check", "Say whether a configuration can be used; starts nothing."),
    "list": ("narthex.cli.list:list_", "List tools, prompts and resources of a gateway or server."),
    "call": ("narthex.cli.call:call", "Call a tool and print what it answers."),
    "connect": ("narthex.cli.connect:connect", "Show or write the configuration of a client."),
    "whoami": ("narthex.cli.whoami:whoami", "Show how a token or key is read, and why."),
    "explain": ("narthex.cli.explain:explain", "Show why a call is allowed or denied, rule by rule."),
    "policy": ("narthex.cli.policy:policy", "Test rules with cases; find what they allow and nobody uses."),
    "replay": ("narthex.cli.replay:replay", "Decide recorded calls again; or let them answer an agent."),
    "cost": ("narthex.cli.cost:cost", "Show who spent what on what, by day."),
    "limits": ("narthex.cli.limits:limits", "Show what is used of each limit, and when there is more."),
    "approvals": ("narthex.cli.approvals:approvals", "Approve or deny calls that wait for a person."),
    "run": ("narthex.cli.run:run", "Show what an agent did in several steps, as a tree."),
    "audit": ("narthex.cli.audit:audit", "Prove that the record of calls is whole; find in it, export, report."),
    "cache": ("narthex.cli.cache:cache", "Show what answers are kept, and end them."),
    "doctor": ("narthex.cli.doctor:doctor", "Look at what the gateway needs; say what to do where it is wrong."),
    "top": ("narthex.cli.top:top", "Show live who calls what, how long it takes, what it costs."),
    "keys": ("narthex.cli.keys:keys", "Make, list, revoke and rotate API keys."),
    "secrets": ("narthex.cli.secrets:secrets", "Keep the secrets that servers want, sealed."),
    "migrate": ("narthex.cli.migrate:migrate", "Bring the tables of the store to this version's form."),
    "schema": ("narthex.cli.schema:schema", "Print the JSON Schema of narthex.yaml."),
}
"""Name -> where it is, and its line in the overview: so that `--help` and `--version` load no command."""


class LazyGroup(click.Group):
    """Commands by name from `COMMANDS`. What is refused, a configuration or a store, ends any of them with its problems
    and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from narthex.config.document import suggest

            ctx.fail(f"no command '{args[0]}'{suggest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        from narthex.errors import ConfigError, StoreError

        try:
            return super().invoke(ctx)
        except ConfigError as error:
            show_problems(error.problems)
            ctx.exit(1)
        except StoreError as error:
            show_problems([error.problem])
            ctx.exit(1)


def show_problems(problems: list[str]) -> None:
    """Each fault on a line of its own on stderr, then how many there were."""
    for problem in problems:
        click.echo(problem, err=True)
    count = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
    click.secho(f"{count}; nothing was changed or started.", err=True, fg="red")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(f"{__version__} ({FORM})", "-V", "--version", prog_name="narthex", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Narthex, the MCP gateway: one governed URL between AI agents and MCP servers."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Entry point of the `narthex` program."""
    cli.main(prog_name="narthex")


if __name__ == "__main__":
    main()
