"""`hostagent spool`: what waits on disk for a backend, listed, printed, verified and sent again.

Works beside a running agent and without one: it reads, takes no lock, and moves or removes no segment. Sending again
is left to the agent, which is asked by way of its data directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from hostagent.cli import show
from hostagent.cli.options import config_option, data_dir_option, find_data_dir, json_option, wait_option
from hostagent.errors import EXIT_FAILURE, EXIT_OK, HostagentError
from hostagent.state.spool.spooled import SPOOL_DIRECTORY, directory_name

if TYPE_CHECKING:
    from hostagent.state.spool.reading import ListedBlock


class SpoolSummary(msgspec.Struct, frozen=True):
    """One output's spool in one line."""

    output: str
    directory: str
    blocks: int
    records: int
    log_bytes: int
    disk_bytes: int
    oldest_ns: int | None
    damaged: int
    missing_segments: tuple[int, ...]
    foreign_files: tuple[str, ...]


@click.group()
def spool() -> None:
    """Look at what waits on disk for its output, and send it again.

    PLACE is the name of an output, or the path of a segment file (one from quarantine, say).
    """


@spool.command()
@click.argument("places", metavar="[PLACE]...", nargs=-1)
@config_option()
@data_dir_option()
@json_option()
def ls(places: tuple[str, ...], config_path: str, data_dir: str | None, as_json: bool) -> None:
    """List what waits: every output in one line, or every block of a PLACE.

    PLACE is the name of an output, or the path of a segment file.
    """
    from hostagent.state.spool.reading import list_blocks

    found = _find(config_path, data_dir, places)
    if not places:
        _list_outputs(found, as_json)
        return
    blocks = [block for place in found for block in list_blocks(place)]
    if as_json:
        show.print_json([_block_json(block) for block in blocks])
        return
    titles = ("block", "written", "records>", "log bytes>", "on disk>", "files>", "segment", "at>")
    show.table(titles, [_block_row(block) for block in blocks])


@spool.command()
@click.argument("place")
@click.argument("block", required=False)
@config_option()
@data_dir_option()
@json_option()
@click.pass_context
def cat(
    ctx: click.Context, *, place: str, block: str | None, config_path: str, data_dir: str | None, as_json: bool
) -> None:
    """Print the records of one block, or of all.

    PLACE is the name of an output, or the path of a segment file; BLOCK the id of a block, as `ls PLACE` lists it.
    Records are printed as they would be sent, decompressed. With --json one object a block, with what is known of it.
    Damaged blocks are named on stderr and make the exit code 1.
    """
    from hostagent.deliver.compress import decompress
    from hostagent.errors import StateError
    from hostagent.state.spool.reading import list_blocks, read_block

    known = False
    failed = False
    for listed in list_blocks(_find(config_path, data_dir, (place,))[0], verify=True):
        if block is not None and (listed.header is None or listed.header.id != block):
            continue
        known = True
        try:
            if listed.damage:
                raise StateError(f"{listed.segment}: bytes {_span(listed)} can't be read: {listed.damage}")
            delivery = read_block(listed).delivery
        except StateError as error:
            click.echo(show.visible(f"hostagent: {error}"), err=True)
            failed = True
            continue
        body = decompress(delivery.body, delivery.compression)
        if as_json:
            lines = body.decode(errors="backslashreplace").splitlines()
            click.echo(show.compact_json({**_block_json(listed), "lines": lines}))
        else:
            show.print_bytes(body)
    if block is not None and not known:
        raise HostagentError(
            f"there is no block {block} (it may have been delivered meanwhile): see `spool ls {place}`"
        )
    ctx.exit(EXIT_FAILURE if failed else EXIT_OK)


@spool.command()
@click.argument("places", metavar="[PLACE]...", nargs=-1)
@config_option()
@data_dir_option()
@json_option()
@click.pass_context
def verify(ctx: click.Context, places: tuple[str, ...], config_path: str, data_dir: str | None, as_json: bool) -> None:
    """Check every checksum, of all spools or of each PLACE.

    PLACE is the name of an output, or the path of a segment file. Names the parts that are damaged and the segments
    that are missing. Exit code 1 if there are any.
    """
    from hostagent.state.spool.reading import list_blocks, strange_in

    whole = 0
    problems: list[dict[str, object]] = []
    for place in _find(config_path, data_dir, places):
        for listed in list_blocks(place, verify=True):
            whole += not listed.damage
            if listed.damage:
                problems.append(_damage_json(listed))
        if place.is_dir():
            missing = strange_in(place).missing
            problems += [{"segment": str(place / f"{number:012d}-*.seg"), "why": "it is gone"} for number in missing]
    if as_json:
        show.print_json({"whole_blocks": whole, "damaged": problems})
    else:
        click.echo(f"{show.count(whole)} blocks are whole, {show.count(len(problems))} parts are damaged or missing")
        for problem in problems:
            show.trouble(_told(problem))
    ctx.exit(EXIT_FAILURE if problems else EXIT_OK)


@spool.command()
@click.argument("segment", type=click.Path(exists=True, dir_okay=False, resolve_path=True))
@config_option()
@data_dir_option()
@json_option()
@click.option("--output", metavar="NAME", help="Send to this output instead of the one the blocks were for.")
@wait_option()
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    segment: str,
    config_path: str,
    data_dir: str | None,
    as_json: bool,
    output: str | None,
    wait_s: float,
) -> None:
    """Have the whole blocks of a segment file sent again.

    The running agent sends them, or the next one, under the ids they had. Damaged blocks are named, and make the exit
    code 1.
    """
    from hostagent.cli.asking import hand_in
    from hostagent.state.requests import Request
    from hostagent.state.spool.reading import list_blocks

    state = find_data_dir(config_path, data_dir).resolve()
    listed = list(list_blocks(Path(segment), verify=True))
    whole = [one.header for one in listed if one.header is not None and not one.damage]
    if not whole:
        raise HostagentError(f"{segment}: no block in it is whole, see `hostagent spool verify`")
    if output in (None, whole[0].output) and _waits_in_a_spool(Path(segment), state):
        raise HostagentError(
            f"{segment} still waits in the spool of output {whole[0].output}, which sends it by itself; "
            "if the configuration has that output no more, name it there again, or another one with --output"
        )
    answer = hand_in(state, Request(output=output or whole[0].output, segment=segment), wait_s)
    if as_json:
        damaged = [_damage_json(one) for one in listed if one.damage]
        show.print_json({**answer.as_json(), "whole_blocks": len(whole), "damaged": damaged})
    else:
        answer.tell("blocks")
        for one in listed if answer.state != "done" else ():
            if one.damage:
                show.trouble(_told(_damage_json(one)))
    ctx.exit(EXIT_FAILURE if answer.failed or len(whole) < len(listed) else EXIT_OK)


def _waits_in_a_spool(segment: Path, state: Path) -> bool:
    from hostagent.state.spool.reading import list_blocks

    place = segment.parent
    return place.parent == state / SPOOL_DIRECTORY and any(one.segment.samefile(segment) for one in list_blocks(place))


def _list_outputs(found: list[Path], as_json: bool) -> None:
    rows = [_summary(directory) for directory in found]
    if as_json:
        show.print_json(rows)
        return
    if not rows:
        click.echo("nothing was ever spooled here")
        return
    titles = ("output", "blocks>", "records>", "log bytes>", "on disk>", "oldest", "damaged>", "missing>")
    shown = [
        (
            row.output,
            show.count(row.blocks),
            show.count(row.records),
            show.size(row.log_bytes),
            show.size(row.disk_bytes),
            show.moment(row.oldest_ns),
            show.count(row.damaged),
            show.count(len(row.missing_segments)),
        )
        for row in rows
    ]
    show.table(titles, shown)


def _summary(directory: Path) -> SpoolSummary:
    from hostagent.state.spool.reading import disk_bytes, list_blocks, strange_in

    listed = list(list_blocks(directory))
    whole = [one.header for one in listed if one.header is not None and not one.damage]
    strange = strange_in(directory)
    return SpoolSummary(
        output=whole[0].output if whole else directory.name,
        directory=str(directory),
        blocks=len(whole),
        records=sum(one.records for one in whole),
        log_bytes=sum(one.raw_bytes for one in whole),
        disk_bytes=disk_bytes(directory),
        oldest_ns=whole[0].observed_ns if whole else None,
        damaged=len(listed) - len(whole),
        missing_segments=strange.missing,
        foreign_files=strange.foreign,
    )


def _find(config_path: str, data_dir: str | None, places: tuple[str, ...]) -> list[Path]:
    """The directories or segment files that are meant; all spools when nothing is named."""
    from hostagent.state.spool.reading import spools

    files = [place for place in places if _is_path(place)]
    if places and len(files) == len(places):
        return [Path(place) for place in places]
    state = find_data_dir(config_path, data_dir)
    if not places:
        return spools(state)
    found = []
    for place in places:
        directory = state / SPOOL_DIRECTORY / directory_name(place)
        if not _is_path(place) and directory not in spools(state):
            there = ", ".join(path.name for path in spools(state)) or "none"
            raise HostagentError(f"output {place} has nothing spooled in {state} (outputs that have: {there})")
        found.append(Path(place) if _is_path(place) else directory)
    return found


def _is_path(place: str) -> bool:
    return "/" in place or place.endswith(".seg")


def _block_row(listed: ListedBlock) -> tuple[str, ...]:
    header = listed.header
    segment = listed.segment.name
    if header is None or listed.damage:
        name = header.id if header is not None else "-"
        return (
            name,
            f"DAMAGED: {listed.damage}",
            "-",
            "-",
            show.size(listed.bytes),
            "-",
            segment,
            str(listed.place.offset),
        )
    files = {range_.file for part in header.parts for range_ in part.ranges}
    return (
        header.id,
        show.moment(header.observed_ns),
        show.count(header.records),
        show.size(header.raw_bytes),
        show.size(listed.bytes),
        show.count(len(files)),
        segment,
        str(listed.place.offset),
    )


def _block_json(listed: ListedBlock) -> dict[str, object]:
    header = listed.header
    place = {"segment": str(listed.segment), "offset": listed.place.offset, "disk_bytes": listed.bytes}
    if header is None:
        return {"id": None, "damage": listed.damage, **place}
    return {
        "id": header.id,
        "output": header.output,
        "damage": listed.damage,
        "observed_ns": header.observed_ns,
        "spooled_ns": header.spooled_ns,
        "records": header.records,
        "log_bytes": header.raw_bytes,
        "content_type": header.content_type,
        "compression": header.compression,
        **place,
        "ranges": list(_ranges(listed)),
    }


def _ranges(listed: ListedBlock) -> Iterator[dict[str, object]]:
    for part in listed.header.parts if listed.header is not None else ():
        for range_ in part.ranges:
            yield {"source": part.source, "file": range_.file, "start": range_.start, "end": range_.end}


def _damage_json(listed: ListedBlock) -> dict[str, object]:
    start, end = listed.place.offset, listed.place.offset + listed.bytes
    block = listed.header.id if listed.header is not None else None
    return {
        "segment": str(listed.segment),
        "start": start,
        "end": end,
        "why": listed.damage,
        "block": block,
        "ranges": list(_ranges(listed)),
    }


def _told(problem: dict[str, object]) -> str:
    where = f", bytes {problem['start']} to {problem['end']}" if "start" in problem else ""
    block = f" (block {problem['block']})" if problem.get("block") else ""
    return f"{problem['segment']}{where}: {problem['why']}{block}"


def _span(listed: ListedBlock) -> str:
    return f"{listed.place.offset} to {listed.place.offset + listed.bytes}"
