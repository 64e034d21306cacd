"""`hostagent dead-letters`: what backends refused for good, with their reasons.

Lists and prints beside a running agent or without one, and reads only. Sending again is left to the agent, which is
asked by way of its data directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostagent.cli import show
from hostagent.cli.options import config_option, data_dir_option, find_data_dir, json_option, wait_option
from hostagent.errors import EXIT_FAILURE, EXIT_OK, HostagentError, StateError

if TYPE_CHECKING:
    from hostagent.state.letters import DeadLetter


@click.group()
def dead_letters() -> None:
    """Look at what backends refused for good, and send it again.

    An entry holds the records of one request that its backend refused for good.
    """


@dead_letters.command()
@click.argument("output", required=False)
@config_option()
@data_dir_option()
@json_option()
def ls(output: str | None, config_path: str, data_dir: str | None, as_json: bool) -> None:
    """List the entries, with the backend's reasons."""
    state = find_data_dir(config_path, data_dir)
    entries = [letter for directory in _directories(state, output) for letter in _entries(directory)]
    if as_json:
        show.print_json([_entry_json(letter) for letter in entries])
        return
    if not entries:
        click.echo("there are no dead letters")
        return
    rows = [
        (
            letter.header.output,
            letter.id,
            show.moment(letter.header.at_ns),
            show.count(len(letter.header.sizes)),
            show.size(sum(letter.header.sizes)),
            "; ".join(letter.header.reasons),
        )
        for letter in entries
    ]
    show.table(("output", "entry", "refused", "records>", "size>", "why"), rows)


@dead_letters.command()
@click.argument("output")
@click.argument("entries", metavar="[ENTRY]...", nargs=-1)
@config_option()
@data_dir_option()
@json_option()
@click.pass_context
def cat(
    ctx: click.Context, *, output: str, entries: tuple[str, ...], config_path: str, data_dir: str | None, as_json: bool
) -> None:
    """Print the records of some entries, or of all.

    ENTRY is an id as `ls` lists it. Records are printed as they were sent, one after the other. With --json one object
    a record, with the entry and the reason.
    """
    from hostagent.state.letters import read_records

    state = find_data_dir(config_path, data_dir)
    failed = False
    for directory in _directories(state, output):
        for letter in chosen(directory, entries):
            try:
                records = read_records(directory, letter.id)
            except StateError as error:
                click.echo(show.visible(f"hostagent: {error}"), err=True)
                failed = True
                continue
            for number, record in enumerate(records):
                if as_json:
                    reason = letter.header.reasons[letter.header.why[number]]
                    text = record.decode(errors="backslashreplace").removesuffix("\n")
                    click.echo(show.compact_json({"entry": letter.id, "reason": reason, "record": text}))
                else:
                    show.print_bytes(record)
    ctx.exit(EXIT_FAILURE if failed else EXIT_OK)


@dead_letters.command()
@click.argument("output")
@click.argument("entries", metavar="[ENTRY]...", nargs=-1)
@config_option()
@data_dir_option()
@json_option()
@click.option("--all", "everything", is_flag=True, help="Every entry of the output.")
@wait_option()
@click.pass_context
def requeue(
    ctx: click.Context,
    *,
    output: str,
    entries: tuple[str, ...],
    config_path: str,
    data_dir: str | None,
    as_json: bool,
    everything: bool,
    wait_s: float,
) -> None:
    """Have entries sent again.

    ENTRY is an id as `ls` lists it. The running agent sends them, or the next one. What the backend takes is taken off
    the list; what it refuses again comes back as a new entry. Exit code 1 if an entry could not be sent.
    """
    from hostagent.cli.asking import hand_in
    from hostagent.state.letters import again_id
    from hostagent.state.requests import Request

    if bool(entries) == everything:
        raise click.UsageError("name the entries to send again, or say --all")
    state = find_data_dir(config_path, data_dir)
    (directory,) = _directories(state, output)
    letters = chosen(directory, entries)
    if not letters:
        raise HostagentError(f"output {output} has no dead letters")
    answer = hand_in(state, Request(output=output, letters=tuple(letter.id for letter in letters)), wait_s)
    ids = {again_id(letter.header) for letter in letters}
    again = sum(letter.header.block in ids for letter in _entries(directory)) if answer.state == "done" else 0
    if as_json:
        show.print_json({**answer.as_json(), "refused_again": again})
    else:
        answer.tell("entries")
        if again:
            show.trouble(
                f"{show.count(again)} entries were refused again: `hostagent dead-letters ls {output}` says why"
            )
    ctx.exit(EXIT_FAILURE if answer.failed else EXIT_OK)


def chosen(directory: Path, entries: tuple[str, ...]) -> list[DeadLetter]:
    """The entries that are named, all when none is; HostagentError when one is not there."""
    there = _entries(directory)
    unknown = set(entries) - {letter.id for letter in there}
    if unknown:
        raise HostagentError(f"there is no entry {min(unknown)} in {directory}: see `hostagent dead-letters ls`")
    return [letter for letter in there if not entries or letter.id in entries]


def _directories(state: Path, output: str | None) -> list[Path]:
    from hostagent.state.letters import DEAD_LETTERS_DIRECTORY, letter_boxes
    from hostagent.state.spool.spooled import directory_name

    there = letter_boxes(state)
    if output is None:
        return there
    wanted = state / DEAD_LETTERS_DIRECTORY / directory_name(output)
    if wanted not in there:
        names = ", ".join(path.name for path in there) or "none"
        raise HostagentError(f"output {output} has no dead letters in {state} (outputs that have: {names})")
    return [wanted]


def _entries(directory: Path) -> list[DeadLetter]:
    from hostagent.state.faults import look_fault
    from hostagent.state.letters import read_entries

    try:
        return list(read_entries(directory))
    except OSError as error:
        raise look_fault(directory, error) from error


def _entry_json(letter: DeadLetter) -> dict[str, object]:
    header = letter.header
    return {
        "output": header.output,
        "entry": letter.id,
        "refused_ns": header.at_ns,
        "block": header.block,
        "records": len(header.sizes),
        "bytes": sum(header.sizes),
        "disk_bytes": letter.bytes,
        "reasons": header.reasons,
    }
