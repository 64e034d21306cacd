"""A world of one log directory and an agent's reader in it, both moved step by step: nothing happens by itself.

So the agent can be late, killed and started again between any two steps of a rotation, and a thousand lives take a few
minutes. What must not happen: a line twice, a line never, an entry in the loss ledger where nothing can be missing.
"""

import gzip
import os
import random
import shutil
from pathlib import Path

from hostagent.tail.finding.paths import compile_selection
from tests.support.follower import EXCLUDED, Follower, Store
from tests.tail.clock import HandClock

PATIENCE_S = 12.0
"""Longer than a suspected copy is watched."""


class Body:
    """What was written to one file, one generation: the numbers of its lines. `names`: where that can be found."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: set[str] = set()
        self.settled = False  # whether the agent has heard all of it, once


class World:
    """The directory, what was written to it, and the agent. `excuses` are deletions that nobody could hear."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)
        self.aside = directory / "aside"
        self.aside.mkdir()
        self.rng = rng
        self.trace: list[str] = []
        self.backend = Store()
        self.clock = HandClock()
        self.rotated_wanted = rng.choice(["none", "all", "first", "dated"])
        names = {"none": [], "all": ["app.log.*", "app-*.log"], "first": ["app.log.1"], "dated": ["app-*.log"]}
        self.patterns = [f"{self.logs}/{name}" for name in ["app.log", *names[self.rotated_wanted]]]
        self.selection = compile_selection(self.patterns, EXCLUDED)
        self.most = rng.choice([1, 2, 3, 3, 100])
        self.linked = rng.random() < 0.2
        self.agent: Follower | None = None
        self.bodies: list[Body] = []
        self.where: dict[str, Body] = {}
        self.live = "app.log"
        self.fd = -1
        self.body: Body | None = None
        self.number = 0
        self.serial = 0
        self.unheard = 0  # deletions since the agent has last settled
        self.excuses = 0
        self.puzzling = False  # whether a log was copied and truncated since then
        self.unlooked = False  # or since the agent looked
        self.note(f"patterns {self.rotated_wanted} most {self.most} linked {self.linked}")

    def note(self, text: str) -> None:
        self.trace.append(text)

    def path(self, name: str) -> Path:
        return self.logs / name

    def wanted(self, name: str) -> bool:
        return self.selection.matches(str(self.path(name)))

    # -- the agent -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.agent is None:
            self.note("start")
            self.agent = Follower(self.directory / "state", self.patterns, self.backend, self.clock, self.most)

    def look(self) -> None:
        if self.agent is not None:
            self.note("look")
            self.agent.output.answers = self.rng.random() < 0.7
            self.agent.look(self.rng.choice([1, 1, 2, 3]))
            self.unlooked = False
            self.agent.output.deliver()

    def look_at_copies(self) -> None:
        """A copy whose original has another name, or none, when it is heard of is nobody's: that is not promised."""
        if self.unlooked:
            self.look()

    def excuse(self, body: Body) -> None:
        """It loses a name before everything is heard that happened to it: nobody can know what it held or was."""
        if self.puzzling or not body.settled or self.agent is None or not self.agent.holds(self.path_inode(body)):
            self.excuses += 1

    def path_inode(self, body: Body) -> int:
        return os.stat(self.path(min(body.names))).st_ino

    def maybe(self) -> None:
        """What may happen to the agent between any two steps of the world."""
        luck = self.rng.random()
        if self.agent is None:
            if luck < 0.25:
                self.start()
        elif luck < 0.35:
            self.look()
        elif luck < 0.42:
            self.settle()
        elif luck < 0.45:
            self.clock.now_s += self.rng.choice([0.3, 1.0])
        elif luck < 0.50:
            self.kill()
        elif luck < 0.53:
            self.stop()

    def settle(self, for_s: float = 2.0) -> None:
        if self.agent is not None:
            self.note(f"settle {for_s:g}")
            self.agent.output.answers = True
            self.agent.output.deliver()
            self.agent.settle(for_s)
            self.unheard = 0
            self.puzzling = self.unlooked = False
            for body in self.bodies:
                body.settled = True
            self.check_arrived(final=False)

    def kill(self) -> None:
        """Not before it has what nobody will have any more."""
        assert self.agent is not None
        if any(not self.reachable(body) and not self.has_all(body) for body in self.bodies):
            self.settle(PATIENCE_S)
        self.note("kill")
        self.agent.kill()
        self.agent = None
        self.excuses += self.unheard
        self.unheard = 0

    def stop(self) -> None:
        assert self.agent is not None
        if any(not self.reachable(body) and not self.has_all(body) for body in self.bodies):
            self.settle(PATIENCE_S)
        self.note("stop")
        self.agent.stop()
        self.agent = None

    # -- what is known from outside --------------------------------------------------------------------------------

    def has_all(self, body: Body) -> bool:
        return all(self.backend.messages[line] for line in body.lines)

    def is_known(self, body: Body) -> bool:
        return any(self.backend.messages[line] for line in body.lines)

    def reachable(self, body: Body) -> bool:
        """Whether an agent that is started now can have it."""
        plain = [name for name in body.names if not name.endswith(".gz")]
        return any(self.wanted(name) for name in plain) or (bool(body.names) and self.is_known(body))

    def may_lose_name(self, body: Body, left: set[str], *, stays: bool = True) -> bool:
        """Whether a body may be left with these names only; a running agent is waited for, one that is down can't."""
        if self.has_all(body):
            return True
        if any(self.wanted(name) for name in left if not name.endswith(".gz")) or (left and self.is_known(body)):
            return True
        if stays and self.agent is not None and body.names and self.agent.holds(self.path_inode(body)):
            return True  # it has it open, and must not let go of it
        self.settle(PATIENCE_S)
        return self.has_all(body)

    def check_arrived(self, *, final: bool) -> None:
        twice = [line for line, count in self.backend.messages.items() if count > 1]
        assert not twice, f"came twice: {twice[:5]}"
        assert self.agent is not None
        losses = self.agent.losses()
        assert len(losses) <= self.excuses, f"in the ledger in vain, {self.excuses} excuses: {losses}"
        if final:
            missing = [line for body in self.bodies for line in body.lines if not self.backend.messages[line]]
            assert not missing, f"never came: {missing[:5]}"

    # -- names -----------------------------------------------------------------------------------------------------

    def _add_name(self, name: str, body: Body) -> None:
        self._drop_name(name)
        self.where[name] = body
        body.names.add(name)

    def _drop_name(self, name: str) -> None:
        body = self.where.pop(name, None)
        if body is not None:
            body.names.discard(name)
            if not body.names:
                self._note_gone(body)
                if name.endswith(".gz"):
                    self.excuses += 1  # an agent that stops now doesn't know how much there would have been in it

    def _note_gone(self, body: Body) -> None:
        """Nothing leads to it any more: that is heard, or found by the next start."""
        if self.agent is None:
            self.excuses += 1
        else:
            self.unheard += 1
        if not body.lines:
            self.excuses += 1  # what is written to the next file of its name soon may be taken for its own

    def _fresh_body(self) -> Body:
        body = Body()
        self.bodies.append(body)
        return body

    def rotated_name(self) -> str:
        self.serial += 1
        return self.rng.choice(["app.log.1", f"app.log.{self.serial + 1}", f"app-{self.serial}.log"])

    def free(self, name: str) -> bool:
        """Have a name free for what is rotated to it: what has it is moved on, or deleted."""
        body = self.where.get(name)
        if body is None:
            return True
        other = f"app.log.{self.serial + 100}"
        self.serial += 1
        left = (body.names - {name}) | {other}
        if not self.may_lose_name(body, left):
            return False
        self.note(f"rename {name} {other}")
        self.path(name).rename(self.path(other))
        self._drop_name_quietly(name)
        self._add_name(other, body)
        self.maybe()
        return True

    def _drop_name_quietly(self, name: str) -> None:
        body = self.where.pop(name)
        body.names.discard(name)

    # -- the application -------------------------------------------------------------------------------------------

    def open_live(self) -> None:
        self.fd = os.open(self.path(self.live), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self.live not in self.where:
            self._add_name(self.live, self._fresh_body())
        self.body = self.where[self.live]

    def write(self) -> None:
        if self.fd < 0:
            self.open_live()
        assert self.body is not None
        if not self.body.names or (not self.reachable(self.body) and self.agent is None):
            return  # nobody will ever have it
        if self.agent is not None and not self.reachable_while_running(self.body):
            return
        count = self.rng.choice([1, 2, 5, 40])
        lines = [f"line {number} {'.' * 40}" for number in range(self.number, self.number + count)]
        self.number += count
        self.body.lines += lines
        self.note(f"write {lines[0].split()[1]}+{count} to {sorted(self.body.names)}")
        os.write(self.fd, "".join(f"{line}\n" for line in lines).encode())
        if self.rng.random() < 0.3:
            self.close()

    def reachable_while_running(self, body: Body) -> bool:
        """A running agent has a file that it has seen, or will see by its name."""
        return self.reachable(body)

    def close(self) -> None:
        if self.fd >= 0:
            self.note("close")
            os.close(self.fd)
        self.fd = -1
        self.body = None

    # -- rotations -------------------------------------------------------------------------------------------------

    def rename(self) -> None:
        """Rename and create; the application may go on in the old file for a while."""
        self.look_at_copies()
        body = self.where.get(self.live)
        name = self.rotated_name()
        if body is None or not self.free(name) or not self.may_lose_name(body, (body.names - {self.live}) | {name}):
            return
        self.excuse(body)
        self.note(f"rename {self.live} {name}")
        self.path(self.live).rename(self.path(name))
        self._drop_name_quietly(self.live)
        self._add_name(name, body)
        self.maybe()
        if self.rng.random() < 0.3:
            self.write()
            self.maybe()
        self.close()
        if self.rng.random() < 0.7:
            self.open_live()

    def hard_link(self) -> None:
        self.look_at_copies()
        body = self.where.get(self.live)
        name = self.rotated_name()
        if body is None or not self.free(name):
            return
        self.note(f"link {self.live} {name}")
        os.link(self.path(self.live), self.path(name))
        self._add_name(name, body)
        self.maybe()
        if not self.may_lose_name(body, body.names - {self.live}):
            return
        self.excuse(body)
        self.note(f"unlink {self.live}")
        self.path(self.live).unlink()
        self._drop_name_quietly(self.live)
        self.maybe()
        self.close()

    def copytruncate(self) -> None:
        """Copied directly or under another name first; nothing is written in between."""
        body = self.where.get(self.live)
        name = self.rotated_name()
        if body is None or not body.lines or not self.free(name):
            return
        if not self.may_lose_name(body, (body.names - {self.live}) | {name}, stays=False):
            return
        first = name if self.rng.random() < 0.6 else self.rng.choice(["app.log.tmp", f"app.log.{self.serial + 500}"])
        data = self.path(self.live).read_bytes()
        cut = self.rng.randrange(len(data) + 1)
        self.note(f"copy {self.live} {first} in two, {cut} first")
        with self.path(first).open("wb", buffering=0) as copy:
            copy.write(data[:cut])
            if self.rng.random() < 0.5:
                self.few()
            copy.write(data[cut:])
        self.few()
        if first != name and self.rng.random() < 0.5:
            self.note(f"rename {first} {name}")
            self.path(first).rename(self.path(name))
            first = name
            self.few()
        self.note(f"truncate {self.live}")
        os.truncate(self.path(self.live), 0)
        fresh = self._fresh_body()
        fresh.names = body.names
        body.names = {first}
        for own in fresh.names:
            self.where[own] = fresh
        self.where[first] = body
        if self.body is body:
            self.body = fresh
        self.puzzling = self.unlooked = True
        self.maybe()
        if first != name:
            self.note(f"rename {first} {name}")
            self.path(first).rename(self.path(name))
            self._drop_name_quietly(first)
            self._add_name(name, body)

    def few(self) -> None:
        """Between a copy and its truncate less may happen: ten seconds must not pass."""
        if self.agent is not None and self.rng.random() < 0.5:
            self.look()

    def compress(self) -> None:
        names = [name for name in sorted(self.where) if name != self.live and not name.endswith(".gz")]
        if not names:
            return
        name = self.rng.choice(names)
        body = self.where[name]
        if body is self.body or not body.lines or len(body.names) > 1:
            return
        packed = f"{name}.gz"
        if packed in self.where or not self.may_lose_name(body, {packed}):
            return
        self.note(f"gzip {name}")
        with self.path(name).open("rb") as plain, gzip.open(self.path(packed), "wb", compresslevel=1) as target:
            shutil.copyfileobj(plain, target)
        self._add_name(packed, body)
        self.maybe()
        if name not in self.where:
            return
        self.note(f"unlink {name}")
        self.path(name).unlink()
        self._drop_name_quietly(name)
        if self.puzzling or (self.agent is None and not self.is_known(body)):
            self.excuses += 1

    def delete(self) -> None:
        if not self.where:
            return
        self.look_at_copies()
        name = self.rng.choice(sorted(self.where))
        body = self.where[name]
        if not self.may_lose_name(body, body.names - {name}):
            return
        self.excuse(body)
        self.note(f"unlink {name}")
        self.path(name).unlink()
        self._drop_name(name)
        if name == self.live:
            self.close()
            if self.rng.random() < 0.5:
                self.open_live()

    def replace(self) -> None:
        """Another file is renamed onto the live one."""
        self.look_at_copies()
        body = self.where.get(self.live)
        if body is None or not self.may_lose_name(body, body.names - {self.live}):
            return
        fresh = self._fresh_body()
        lines = [f"line {self.number} {'.' * 40}"]
        self.number += 1
        fresh.lines += lines
        self.note(f"replace {self.live} by one with line {lines[0].split()[1]}")
        (self.aside / "new").write_text("".join(f"{line}\n" for line in lines))
        (self.aside / "new").rename(self.path(self.live))
        self._add_name(self.live, fresh)
        self.close()

    def swap_link(self) -> None:
        """The live name is a symbolic link, which leads to another file from now on."""
        name = f"data-{self.serial}"
        self.serial += 1
        body = self.where.get(self.live)
        if body is not None and not (self.has_all(body) or self.settled_with(body)):
            return
        if body is not None and not self.path(self.live).is_symlink():
            return
        self.close()
        self.note(f"link {self.live} to {name}")
        (self.aside / name).touch()
        (self.aside / "link").symlink_to(self.aside / name)
        (self.aside / "link").rename(self.path(self.live))
        self.where.pop(self.live, None)
        fresh = self._fresh_body()
        self.where[self.live] = fresh
        fresh.names.add(self.live)
        if body is not None:
            body.names.discard(self.live)
            self._note_gone(body)

    def settled_with(self, body: Body) -> bool:
        self.settle(PATIENCE_S)
        return self.has_all(body)

    # -- a life ----------------------------------------------------------------------------------------------------

    def live_on(self, steps: int) -> None:
        if self.linked:
            actions = [self.write] * 4 + [self.swap_link] * 2
        else:
            actions = [self.write] * 5 + [self.rename, self.rename, self.copytruncate, self.copytruncate]
            actions += [self.hard_link, self.compress, self.delete, self.replace]
        for _ in range(steps):
            self.rng.choice(actions)()
            self.maybe()
        self.start()
        self.settle(PATIENCE_S * 2)
        self.close()
        self.settle(PATIENCE_S * 2)
        self.check_arrived(final=True)

    def end(self) -> None:
        self.close()
        if self.agent is not None:
            self.agent.kill()
        shutil.rmtree(self.directory)
