"""`hostagent run`: the daemon itself, in the foreground.

Checks nothing and prints nothing: that is the daemon's work, which is imported only here. The one thing it begins is
listening to signals, as that can't be too early.
"""

from __future__ import annotations

from pathlib import Path

import click

from hostagent.cli.options import config_option


@click.command()
@config_option()
@click.option(
    "--once",
    is_flag=True,
    help="Read what is there to its end, deliver it, and exit 0. Waits for an output that is down.",
)
@click.pass_context
def run(ctx: click.Context, config_path: str, once: bool) -> None:
    """Run the agent in the foreground.

    Ends on SIGTERM or Ctrl-C, after what has been read is delivered or kept for next time.
    """
    from hostagent.daemon.memory import made_to_stay
    from hostagent.daemon.signals import Signals

    signals = Signals()
    # Loading the agent takes long enough for somebody to change their mind.
    with made_to_stay():
        from hostagent.daemon.agent import run as run_agent

    ctx.exit(run_agent(Path(config_path), signals, once=once))
