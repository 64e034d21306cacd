"""Starts a program and writes down what it used: a small process of its own, so that the figures are the program's.

Memory peaks are inherited across fork and exec on Linux: a program started straight from a big bench would show the
bench's own peak. Usage: launch.py RESULT PROGRAM [ARGUMENT …]; SIGTERM is passed on.
"""

import json
import os
import signal
import sys
import time


def main(result: str, command: list[str]) -> int:
    started_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.execvp(command[0], command)
    with open(f"{result}.pid", "w", encoding="ascii") as target:
        target.write(str(pid))
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status, usage = os.wait4(pid, 0)
    figures = {
        "wall_s": time.monotonic() - started_s,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "exit_code": os.waitstatus_to_exitcode(status),
    }
    with open(result, "w", encoding="ascii") as target:
        json.dump(figures, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
