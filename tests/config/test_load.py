"""A good configuration becomes values; a bad one is told in full, each mistake at its line and column."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hostagent.config.load import load_config, read_part, read_section
from hostagent.config.model import Config, MultilineConfig
from hostagent.errors import ConfigError, ConfigProblem
from tests.config.sample_parts import PARTS, DropOptions, FileOptions, HttpOptions, RegexOptions
from tests.support.agent import agent_command, agent_environment
from tests.support.directories import anyones_directory, small_disk

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(text: str, **options: Any) -> Config:  # noqa: ANN401 - load_config's own
        path = tmp_path / "hostagent.yaml"
        text = text.replace("TMP", str(tmp_path))
        if "data_dir" not in text and not text.startswith("["):
            text += f"\ndata_dir: {tmp_path}/state\n"
        path.write_text(text)
        return load_config(path, PARTS, **{"environment": {}, **options})

    return loaded


@pytest.fixture
def problems(load: Load) -> Callable[..., list[ConfigProblem]]:
    def found(text: str, **options: Any) -> list[ConfigProblem]:  # noqa: ANN401 - load_config's own
        with pytest.raises(ConfigError) as raised:
            load(text, **options)
        return raised.value.problems

    return found


Problems = Callable[..., list[ConfigProblem]]

GOOD = r"""
sources:
  nginx:
    type: file
    include: [TMP/nginx/*.log]
    exclude: ["*.gz"]
    start_at: end
    format: raw
    multiline: {start: '^\d{4}-', flush_after: 1m30s, max_bytes: 64KiB}
    parse: {type: regex, pattern: '^(?P<ip>\S+) '}
    processors: [{type: drop, if: {field: level, matches: '^DEBUG$'}}]
    fields: {service: web, port: 80, canary: true, zone: "1", note: yes}
    outputs: [main]
  pods:
    type: containers
    format: cri
outputs:
  main:
    type: http
    url: http://127.0.0.1:9880/ingest
    timeout: 500ms
    rotate_bytes: 1.5KiB
    block: {max_bytes: 2MiB, max_wait: 250ms}
    spool: {max_bytes: 2GiB, when_full: drop_oldest}
    dead_letters: {max_bytes: 64MiB}
  other: {type: blackhole, compression: none}
api: {listen: "127.0.0.1:9600"}
limits: {max_open_files: 100, chunk_bytes: 1MB}
host: web-1
"""


def test_a_good_configuration_becomes_values(load: Load, tmp_path: Path) -> None:
    config = load(GOOD)
    nginx = config.sources["nginx"]
    assert nginx.options == FileOptions(include=(f"{tmp_path}/nginx/*.log",), exclude=("*.gz",))
    assert nginx.multiline == MultilineConfig(start=r"^\d{4}-", flush_after_s=90.0, max_bytes=65536)
    assert nginx.parse is not None
    assert nginx.parse.options == RegexOptions(pattern=r"^(?P<ip>\S+) ")
    assert [one.type for one in nginx.processors] == ["drop"]
    assert isinstance(nginx.processors[0].options, DropOptions)
    assert nginx.fields == {"service": "web", "port": 80, "canary": True, "zone": "1", "note": "yes"}
    assert (nginx.start_at, nginx.outputs) == ("end", ("main",))
    assert config.sources["pods"].outputs == ("main", "other")
    assert config.sources["pods"].format.type == "cri"
    main = config.outputs["main"]
    assert main.options == HttpOptions(url="http://127.0.0.1:9880/ingest", timeout_s=0.5, rotate_bytes=1536)
    assert (main.block.max_wait_s, main.spool.max_bytes, main.spool.when_full) == (0.25, 2 * 1024**3, "drop_oldest")
    assert main.dead_letters.max_bytes == 64 * 1024**2
    assert (main.compression, main.compression_level, main.encoding.type) == (None, 1, "ndjson")
    assert (config.api.listen, config.host) == (("127.0.0.1:9600",), "web-1")
    assert (config.limits.max_open_files, config.limits.chunk_bytes) == (100, 1_000_000)
    assert config.data_dir == tmp_path / "state"


def test_every_mistake_is_told_with_its_place(problems: Problems) -> None:
    text = r"""
data_dir: /proc/version/state
surces: {}
sources:
  web:
    type: file
    includ: [/var/log/*.log]
    start_at: begining
    multiline: {start: '^(a', flush_after: 5q}
    processors: [{type: drp}, {type: drop, if: {field: 5, matchs: x}}]
    outputs: [mian]
    max_line_bytes: 512k
  "bad name!": {type: blackhole}
outputs:
  main: {type: htp, url: x}
  second: {type: http, url: "ftp://x", timeout: -1, mode: appnd, headers: {A: 5}}
  main: {type: blackhole}
"""
    found = {(one.line, one.column): one for one in problems(text)}
    expected = {
        (2, 11): "data_dir /proc/version/state: /proc/version is not a directory",
        (3, 1): "unknown section `surces`",
        (6, 5): "`include` is missing: a list, each item a string",
        (7, 5): "unknown option `includ`",
        (8, 15): "expected one of beginning, end, found the text 'begining'",
        (9, 24): "the pattern does not compile: missing ), unterminated subpattern at character 2 of the pattern: '(a'",
        (9, 44): "expected a duration such as 500ms, 5s, 10m, 1h30m or a number of seconds, found the text '5q'",
        (10, 25): "unknown processor type `drp`",
        (10, 56): "expected a string, found the number 5",
        (10, 59): "unknown option `matchs`",
        (11, 15): "there is no output `mian`",
        (12, 21): "`k` is no unit of size: write KiB (1024-fold) or KB (1000-fold), found the text '512k'",
        (13, 3): "'bad name!' can't be the name of a source",
        (15, 16): "unknown output type `htp`",
        (16, 49): "expected a duration such as 500ms, 5s, 10m, 1h30m or a number of seconds, found the number -1",
        (16, 59): "expected one of append, truncate, found the text 'appnd'",
        (16, 79): "expected a string, found the number 5",
    }
    assert {place: one.message for place, one in found.items() if place[0] != 17} == expected
    assert found[17, 3].message.startswith("`main` is given twice, first at ")
    assert found[3, 1].hint.startswith("did you mean `sources`?")
    assert found[7, 5].hint.startswith("did you mean `include`?")
    assert found[8, 15].hint == "did you mean `beginning`?"
    assert found[11, 15].hint.startswith("did you mean `main`?")
    assert found[15, 16].hint.startswith("did you mean `http`?")
    assert "hostagent-kafka 1.0) did not load: ImportError: no librdkafka" in found[15, 16].hint
    assert [one.line for one in problems(text)] == sorted(one.line for one in problems(text))


def test_a_parts_own_refusal_is_shown_at_the_option_it_names(problems: Problems) -> None:
    (problem,) = problems("outputs: {main: {type: http, url: 'ftp://x'}}\nsources: {}")
    assert (problem.line, problem.column, problem.message) == (1, 35, "expected http:// or https://")


def test_a_secrets_value_is_never_shown(problems: Problems) -> None:
    (problem,) = problems("outputs: {main: {type: http, url: 'http://x', password: 271828}}")
    assert "271828" not in str(problem)
    assert problem.message == "expected a string, found something else"


@pytest.mark.parametrize(
    "text, message",
    [
        ("outputs: [1", "not valid YAML"),
        ("outputs:\n\tmain: {}", "not valid YAML"),
        ("[a]", "expected a mapping, found a list"),
        ("outputs: 5", "expected a mapping of names, found the number 5"),
        ("outputs: {main: 5}", "expected a mapping, found the number 5"),
        ("outputs: {main: {}}", "`type` is missing: the kind of output"),
        ("outputs: {main: {type: [a]}}", "expected a name, found a list"),
        ("outputs: {main: !!python/object:os.system {type: blackhole}}", "means nothing here"),
        ("outputs: {main: *x}", "alias `*x` has no anchor"),
        ("a: {b: 1}\n---\nc: 1", "a second YAML document"),
        ("? [a]\n: b", "a key must be a name"),
        ("outputs: " + "[" * 60 + "]" * 60, "nested more than 40 levels deep"),
        ("", "no output is configured"),
        ("outputs: {}", "no output is configured"),
        ("outputs: {main: {type: blackhole}}\nsources: {a: {type: containers, outputs: []}}", "at least one output"),
        ("outputs: {main: {type: blackhole}}\nsources: {a: {type: containers, encoding: utf-9}}", "character encoding"),
        ("outputs: {main: {type: blackhole}}\nsources: {a: {type: containers, encoding: zip}}", "character encoding"),
        ("outputs: {main: {type: blackhole}}\nsources: {a: {type: containers, multiline: {}}}", "at least one of"),
        ("outputs: {main: {type: blackhole}}\nsources: {a: {type: containers, parse: 5}}", "expected a parser"),
        ("outputs: {main: {type: blackhole, compression: gzip, compression_level: 20}}", "at most 9 with gzip"),
        ("outputs: {main: {type: blackhole, compression_level: 23}}", "expected at most 22"),
        ("outputs: {main: {type: blackhole}}\napi: {listen: nowhere}", "expected unix:/path or host:port"),
        ("outputs: {main: {type: blackhole}}\napi: {listen: 'unix:a'}", "an absolute path after `unix:`"),
        ("outputs: {main: {type: blackhole}}\ndata_dir: state", "must be an absolute path"),
        ("outputs: {main: {type: http, url: 'http://x', bearer_token_file: /no/such}}", "can't read /no/such"),
        ("outputs: {main: {type: http, url: 'http://x', bearer_token_file: /etc}}", "can't read /etc"),
        ("outputs: {main: {type: http, url: 'http://x', bearer_token_file: token}}", "an absolute path, found 'token'"),
        ("outputs: {main: {type: blackhole}}\nhost: ${NO_SUCH}", "the environment has no variable NO_SUCH"),
        (
            "outputs: {main: {type: blackhole}}\nsources: {a: {type: file, include: [a.log]}}",
            "absolute path, found 'a.log'",
        ),
        ("outputs: {main: {type: blackhole}}\nsources: {a: {type: file, include: [/etc/passwd/*]}}", "Not a directory"),
    ],
)
def test_a_mistake_has_a_place_and_says_what_was_expected(problems: Problems, text: str, message: str) -> None:
    found = problems(text)
    assert [one for one in found if message in one.message], found
    assert all(one.path.endswith("hostagent.yaml") for one in found)


@pytest.mark.parametrize(
    "text, message, hint",
    [
        ("sources: {a: {type: containers, format: regex}}", "unknown framing type", "`regex` goes under `parse`"),
        ("sources: {a: {type: containers, multiline: x}}", "expected a mapping", "its options are continue, end,"),
        ("sources: {a: containers}", "expected a mapping", "write `type: …` and the source's other options"),
        ("host: 'web\n", "begins at line 1", "a quote or bracket is never closed"),
        ("api: {listen: [a\nhost: x\n", "begins at line 1", "missing comma or bracket"),
        ("sources:\n  a:\n  type: file\n   include: [a]\n", "not valid YAML", "indent this line"),
    ],
)
def test_a_common_mistake_is_told_with_what_to_do(problems: Problems, text: str, message: str, hint: str) -> None:
    found = problems(text)
    assert [one for one in found if message in one.message and hint in one.hint], found


def test_aliases_that_expand_without_end_are_refused(problems: Problems) -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    found = problems("l0: &l0 [a]\n" + levels)
    assert "more than 200000 values" in found[0].message


def test_anchors_and_merges_work(load: Load) -> None:
    config = load(
        "outputs: {main: {type: blackhole}}\n"
        "sources:\n"
        "  a: &web {type: containers, start_at: end, fields: {team: web}}\n"
        "  b: {<<: *web, start_at: beginning}\n"
    )
    assert config.sources["b"].fields == {"team": "web"}
    assert config.sources["b"].start_at == "beginning"


def test_json_is_accepted_with_tabs_and_characters_outside_the_basic_plane(load: Load) -> None:
    text = {
        "outputs": {"main": {"type": "blackhole"}},
        "sources": {"a": {"type": "containers", "fields": {"x": "\U0001f600\\"}}},
    }
    config = load(json.dumps({**text, "data_dir": "TMP/state"}, indent="\t", ensure_ascii=True))
    assert config.sources["a"].fields == {"x": "\U0001f600\\"}


def test_variables_of_the_environment_are_filled_in(load: Load) -> None:
    environment = {"PORT": "9880", "EMPTY": "", "TRICK": "x}, second: {type: blackhole"}
    config = load(
        "outputs: {main: {type: http, url: 'http://h:${PORT}/${EMPTY:-default}', mode: \"${MODE:-truncate}\"}}\n"
        "sources: {a: {type: containers, fields: "
        '{a: "${TRICK}", b: "$${PORT}", c: \'${PORT}\', d: "${PORT}", e: "${1}"}}}\n',
        environment=environment,
    )
    assert isinstance(config.outputs["main"].options, HttpOptions)
    assert config.outputs["main"].options.url == "http://h:9880/default"
    assert config.outputs["main"].options.mode == "truncate"
    assert config.sources["a"].fields == {
        "a": "x}, second: {type: blackhole", "b": "${PORT}", "c": 9880, "d": 9880, "e": "${1}"
    }  # fmt: skip
    assert list(config.outputs) == ["main"]


def test_a_variables_value_is_not_shown_in_a_message(problems: Problems) -> None:
    (problem,) = problems(
        "outputs: {main: {type: http, url: 'http://x', mode: '${SECRET}'}}", environment={"SECRET": "hunter2"}
    )
    assert "hunter2" not in str(problem)
    assert "${SECRET}" in problem.message


def test_files_in_conf_d_are_merged_and_a_name_in_two_files_is_told_with_both_places(
    load: Load, problems: Problems, tmp_path: Path
) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.yaml").write_text("sources: {db: {type: containers}}\nhost: h\n")
    (tmp_path / "conf.d" / "a.json").write_text('{"sources": {"web": {"type": "containers", "outputs": ["main"]}}}')
    (tmp_path / "conf.d" / "note.txt").write_text("not: [read")
    (tmp_path / "conf.d" / "empty.yml").write_text("")
    config = load("outputs: {main: {type: blackhole}}")
    assert list(config.sources) == ["web", "db"]
    assert config.host == "h"
    found = problems("outputs: {main: {type: blackhole}}\nsources: {db: {type: containers}}\nhost: x")
    assert [(Path(one.path).name, one.line, one.column) for one in found] == [("b.yaml", 1, 11), ("b.yaml", 2, 1)]
    assert f"source `db` is given twice, first at {tmp_path}/hostagent.yaml:2:11" in found[0].message
    assert f"first at {tmp_path}/hostagent.yaml:3:1" in found[1].message


def test_a_broken_file_in_conf_d_does_not_hide_the_mistakes_of_the_others(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.yaml").write_text("sources: {")
    (tmp_path / "conf.d" / "b.yaml").write_bytes(b"sources: {}\n# \xff\n")
    (tmp_path / "conf.d" / "c.yaml").mkdir()
    found = problems("outputs: {main: {type: nothing}}")
    assert [(Path(one.path).name, one.line) for one in found] == [
        ("a.yaml", 2), ("b.yaml", 2), ("c.yaml", 0), ("hostagent.yaml", 1)
    ]  # fmt: skip


def test_a_control_character_is_told_at_its_place(problems: Problems) -> None:
    (problem,) = problems("# \u00e4\u00f6\noutputs: {main: {type: \x1b[31mblackhole}}")
    assert (problem.line, problem.column) == (2, 24)
    assert "U+001B" in problem.message


def test_a_data_dir_whose_name_no_filesystem_takes_is_a_mistake(problems: Problems) -> None:
    (problem,) = problems(f"data_dir: /tmp/{'d' * 300}\noutputs: {{main: {{type: blackhole}}}}")
    assert "File name too long" in problem.message
    (problem,) = problems("data_dir: ''\noutputs: {main: {type: blackhole}}")
    assert problem.message == "expected a path, found the text ''"


@pytest.mark.requires(root=True, tools=["mount"])
def test_a_data_dir_on_a_read_only_filesystem_is_said_to_be(problems: Problems, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        (problem,) = problems(f"data_dir: {disk}/state\noutputs: {{main: {{type: blackhole}}}}")
    assert (problem.message, problem.hint) == (
        f"data_dir {disk}/state: {disk} is on a read-only filesystem",
        "remount it read-write, or choose another data_dir",
    )


def test_a_spool_too_small_to_drop_from_is_a_mistake(problems: Problems) -> None:
    spool = "{max_bytes: 1MiB, when_full: drop_oldest}"
    (problem,) = problems(f"outputs: {{main: {{type: blackhole, spool: {spool}}}}}")
    assert (problem.line, problem.column) == (1, 54)
    assert "it needs at least 2MiB" in problem.message


def test_an_address_to_listen_on_that_is_given_twice_is_a_mistake(problems: Problems) -> None:
    (problem,) = problems("outputs: {main: {type: blackhole}}\napi: {listen: ['127.0.0.1:9600', '127.0.0.1:9600']}")
    assert problem.message == "'127.0.0.1:9600' is listed twice"


def test_a_missing_file_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: can't read the file: No such file or directory"):
        load_config(tmp_path / "none.yaml", PARTS)


@pytest.mark.requires(root=True, tools=["setpriv"])
def test_a_conf_d_that_may_not_be_listed_is_a_mistake(tmp_path: Path) -> None:
    """Its sources would be missing, and nobody would know; uid 0 without capabilities stands for the agent."""
    path = tmp_path / "hostagent.yaml"
    path.write_text(f"data_dir: {tmp_path}/state\noutputs: {{main: {{type: blackhole}}}}\n")
    (tmp_path / "conf.d").mkdir()
    os.chown(tmp_path / "conf.d", 65534, 65534)
    (tmp_path / "conf.d").chmod(0o700)
    caps = "-dac_override,-dac_read_search"
    run = subprocess.run(
        ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", *agent_command(), "check", "-c", str(path)],
        env=agent_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, f"{tmp_path}/conf.d: can't read" in run.stdout) == (2, True), run.stdout
    assert "Permission denied" in run.stdout


def test_a_fifo_in_conf_d_does_not_hold_up_the_start(load: Load, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    os.mkfifo(tmp_path / "conf.d" / "a.yaml")
    assert list(load("outputs: {main: {type: blackhole}}").outputs) == ["main"]


TWO = """
outputs: {main: {type: blackhole}}
sources:
  a: {type: file, include: [TMP/a/*.log]}
  b: {type: file, include: [TMP/b/*.log, TMP/a/*.log]}
"""


def test_two_sources_with_one_pattern_are_told_with_both_places(problems: Problems, tmp_path: Path) -> None:
    (problem,) = problems(TWO)
    column = TWO.splitlines()[4].replace("TMP", str(tmp_path)).index(f"{tmp_path}/a/") + 1
    assert (problem.line, problem.column) == (5, column)
    assert f"sources `a` and `b` both include '{tmp_path}/a/*.log'" in problem.message
    assert "hostagent.yaml:4:29" in problem.message


def test_two_sources_that_match_one_existing_file_are_told(problems: Problems, load: Load, tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("")
    text = TWO.replace("TMP/a/*.log]}\n  b", "TMP/*.log]}\n  b").replace("TMP/a/*.log", "TMP/x.*")

    def scan(include: Iterable[str], _exclude: Iterable[str]) -> list[str]:
        folders = {Path(pattern).parent: Path(pattern).name for pattern in include}
        return [str(path) for folder, name in folders.items() for path in folder.glob(name)]

    (problem,) = problems(text, scan=scan)
    assert f"sources `a` and `b` both match '{tmp_path}/x.log'" in problem.message
    (tmp_path / "x.log").unlink()
    assert load(text, scan=scan).sources.keys() == {"a", "b"}


AS_NOBODY = """
import os, sys
from hostagent.config.load import load_config
from hostagent.errors import ConfigError
from tests.config.sample_parts import PARTS
os.setgid(65534); os.setuid(65534)
try:
    load_config(sys.argv[1], PARTS)
except ConfigError as error:
    print(error)
"""


@pytest.mark.requires(root=True)
def test_what_the_agents_user_may_not_use_is_told() -> None:
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    with anyones_directory() as directory:
        closed = directory / "closed"
        closed.mkdir(mode=0o700)
        token = directory / "token"
        token.write_text("t")
        token.chmod(0o600)
        config = directory / "hostagent.yaml"
        config.write_text(
            f"data_dir: {closed}/state\n"
            f"sources: {{a: {{type: file, include: ['{closed}/*.log', '{closed}/deeper/*.log']}}}}\n"
            f"outputs: {{main: {{type: http, url: 'http://x', bearer_token_file: {token}}}}}\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(config)], capture_output=True, text=True, check=False, env=environment
        )
    assert run.stderr == ""
    for expected in (
        f"{config}:1:11: data_dir {closed}/state: {closed} is not writable",
        f"{config}:2:37: can't read the directory {closed}: Permission denied",
        f"can't read the directory {closed}/deeper: Permission denied",
        f"can't read {token}: Permission denied\n    hint: make it readable for user 65534",
    ):
        assert expected in run.stdout


def test_a_part_of_a_declaration_is_validated_like_one_of_the_file() -> None:
    assert read_part("parser", {"type": "regex", "pattern": "a"}, PARTS.parsers, "pod x").options == RegexOptions(
        pattern="a"
    )
    assert read_section(MultilineConfig, {"start": "^a", "flush_after": "2s"}, "pod x").flush_after_s == 2.0
    with pytest.raises(ConfigError, match=r"^pod x: the pattern does not compile"):
        read_part("parser", {"type": "regex", "pattern": "("}, PARTS.parsers, "pod x")
