"""What the machine gives at best: the blocks of a spool's segments posted by a loop that does nothing else.

Usage: bare_drain.py DIRECTORY PORT. The same files, the same requests one after the other to the same kind of receiver;
no checksum is looked at, no position kept, nothing else goes on in the process.
"""

import http.client
import os
import sys
from pathlib import Path

from hostagent.state.segments.frames import Frame
from hostagent.state.segments.survey import open_for_reading, scan_segment, survey


def main(directory: str, port: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    for segment in survey(Path(directory)).segments:
        fd = open_for_reading(segment.path)
        for found in scan_segment(segment, 0, segment.size):
            if isinstance(found, Frame):
                body = os.pread(fd, found.payload_bytes, found.payload_offset)
                connection.request("POST", "/ingest", body, {"Content-Encoding": "zstd"})
                connection.getresponse().read()
        os.close(fd)


if __name__ == "__main__":
    main(*sys.argv[1:3])
