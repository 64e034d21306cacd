"""What each HTTP status means for a delivery: the one place where this is decided.

Owns the verdict and the reading of Retry-After. docs/outputs.md shows the same table to operators. The rule behind it:
what an operator can mend (a token, a route, a size limit) is never a reason to give records up.
"""

from __future__ import annotations

import re
from datetime import UTC

from hostagent.errors import PermanentError, TemporaryError
from hostagent.model import Outcome, Verdict

ACKED = Verdict(Outcome.ACKED)
TOO_LARGE = Verdict(Outcome.TOO_LARGE)

# Refused until somebody does something about it: asked often enough to notice the cure, and wrong credentials not so
# often that a backend locks them out.
OPERATOR_DELAY_S = 10.0
CREDENTIALS_DELAY_S = 20.0
# A backend may wish for a pause, not for a day without logs.
LONGEST_WISH_S = 3600.0
# Who sees nothing happen for longer than this wants to know why.
TOLD_WISH_S = 30.0

_BUSY = {408, 425, 429}
# What nginx, Apache and Go say to plain HTTP at a port of theirs that speaks TLS.
_WANTS_TLS = re.compile(r"plain HTTP|HTTP request to an HTTPS", re.IGNORECASE)
_HINTS = {
    401: "it does not accept the credentials: check the token or password file",
    403: "the credentials do not permit this: check what they are allowed to",
    404: "there is nothing at this path: check the url",
    405: "it does not take this method here: check the url",
    407: "a proxy on the way wants credentials",
    410: "what was at this path is gone: check the url",
    415: "it does not take this encoding or compression: set compression to gzip or none",
    421: "this server does not answer for that name: check the url",
    426: "it wants another protocol: check the scheme of the url",
    431: "it finds the request's headers too large: check the headers option",
}


def verdict_of(status: int, where: str, excerpt: str, retry_after: str | None, now_ns: int) -> Verdict:
    """Ack, too large, or raise TemporaryError or PermanentError with a text for the operator."""
    said = f" ({excerpt})" if excerpt else ""
    if 200 <= status < 300:
        return ACKED
    if status == 413:
        return TOO_LARGE
    if status in _BUSY or status >= 500:
        wish = wish_s(retry_after, now_ns)
        waits = f", to be asked again in {wish:.0f} s (SIGHUP tries at once)" if wish and wish > TOLD_WISH_S else ""
        raise TemporaryError(f"{where} answered {status}{waits}{said}", wish)
    if hint := _HINTS.get(status):
        own_s = CREDENTIALS_DELAY_S if status in (401, 403, 407) else OPERATOR_DELAY_S
        delay_s = max(own_s, wish_s(retry_after, now_ns) or 0.0)
        raise TemporaryError(f"{where} answered {status}: {hint}{said}", delay_s)
    if status == 400 and where.startswith("http://") and _WANTS_TLS.search(excerpt):
        raise TemporaryError(
            f"{where} answered 400: it speaks TLS here: write https in the url{said}", OPERATOR_DELAY_S
        )
    if 400 <= status < 500:
        raise PermanentError(f"{where} answered {status}{said}")
    raise TemporaryError(
        f"{where} answered {status}, which is no answer to a delivery: check the url", OPERATOR_DELAY_S
    )


def wish_s(retry_after: str | None, now_ns: int) -> float | None:
    """Seconds a Retry-After asks for, given as a number or as a date; None when there is none or it can't be read."""
    if not retry_after:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), LONGEST_WISH_S)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - rarely needed, and large

    try:
        date = parsedate_to_datetime(text)
        seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now_ns / 1e9
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_WISH_S)
