"""The delimiter parser: values take the message's place, and what doesn't fit is left as it is."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.process.chain import Chain
from hostagent.process.framing.cri import CriFraming
from hostagent.process.framing.raw import RawFraming
from hostagent.process.parse_delimiter import DelimiterOptions, DelimiterParser
from tests.process.reading import assert_cuts_do_not_show, bare, whole

values = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["", '"', ",", 'a"b', "é"]
)


def chain(**options: Any) -> Chain:  # noqa: ANN401 - DelimiterOptions
    return Chain(framing=RawFraming(), parser=DelimiterParser(DelimiterOptions(**{"keys": ("a", "b"), **options})))


def written(row: tuple[str, ...], separator: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="").writerow(row)
    return out.getvalue()


@given(
    st.lists(st.tuples(values, values), max_size=8),
    st.sampled_from(",;|\té"),
    st.lists(st.integers(0, 200), max_size=4),
)
def test_values_become_fields(rows: list[tuple[str, str]], separator: str, at: list[int]) -> None:
    data = "".join(written(row, separator) + "\n" for row in rows).encode()
    done = whole(chain(separator=separator), data)
    assert bare(done.batches) == [{"a": one, "b": other} for one, other in rows]
    assert done.unparsed == 0
    assert_cuts_do_not_show(chain(separator=separator), data, at)


@pytest.mark.parametrize("line", ["", "one", "one,two,three", '"one,two', '"a"b,c', "x" * 300_000 + '"'])
def test_what_does_not_fit_keeps_its_message(line: str) -> None:
    done = whole(chain(), f"1,2\n{line}\n3,4\n".encode())
    assert bare(done.batches) == [{"a": "1", "b": "2"}, {"message": line}, {"a": "3", "b": "4"}]
    assert done.unparsed == 1


def test_the_runtimes_columns_stay_unless_a_field_has_their_name() -> None:
    parser = DelimiterParser(DelimiterOptions(keys=("time", "a")))
    data = b"2024-05-01T10:00:00Z stdout F t,1\n2024-05-01T10:00:00Z stderr F no\n"
    done = whole(Chain(framing=CriFraming(), parser=parser), data)
    assert bare(done.batches) == [
        {"stream": "stdout", "time": "t", "a": "1"},
        {"time": "2024-05-01T10:00:00Z", "stream": "stderr", "message": "no"},
    ]


@pytest.mark.parametrize(
    "options", [{"keys": ()}, {"keys": ("a", "a")}, {"keys": ("a", "")}, {"separator": ""}, {"separator": ",,"}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        chain(**options)
