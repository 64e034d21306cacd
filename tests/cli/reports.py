"""An agent's answers with something of everything in them, hostile text included."""

from hostagent.observe.report import (
    AgentReport,
    CheckReport,
    FileReport,
    FilesReport,
    HealthReport,
    NoticeReport,
    OutputReport,
    PositionReport,
    SourceReport,
)

ESCAPE = "\x1b[2J"

UNHEALTHY = AgentReport(
    version="1.2.3",
    pid=4711,
    host="web-1",
    config="/etc/hostagent/hostagent.yaml",
    data_dir="/var/lib/hostagent",
    uptime_s=3700.0,
    health=HealthReport(
        healthy=False,
        ready=True,
        checks=(
            CheckReport(name="reader", ok=True),
            CheckReport(name="checkpoint", ok=False, reason="disk full", hint="free some space on /var"),
        ),
    ),
    outputs=(
        OutputReport(
            name="main",
            type="http",
            state="retrying",
            state_age_s=65.0,
            last_error=f"connection refused{ESCAPE}",
            last_error_age_s=2.0,
            behind_bytes=3 * 2**20,
            lag_s=61.0,
            spooled_blocks=3,
            spooled_bytes=2**20,
            spool_max_bytes=2**31,
            delivered_records=1234567,
            dead_letters=7,
        ),
        OutputReport(
            name="screen", type="stdout", state="ok", state_age_s=5.0, last_error="pipe full", last_error_age_s=600.0
        ),
    ),
    sources=(
        SourceReport(
            name="nginx", type="file", outputs=("main", "screen"), files=2, open_files=1, unparsed=3, lost_bytes=100
        ),
        SourceReport(name="pods", type="containers", outputs=("main",)),
    ),
    notices=(
        NoticeReport(subject="output main", message=f"connection refused{ESCAPE}", hint="nothing is lost"),
        NoticeReport(subject="/var/log/a\nb", message="permission denied", hint="chmod"),
    ),
    rss_bytes=33 * 2**20,
)

HEALTHY = AgentReport(
    version="1.2.3",
    pid=1,
    host="h",
    config="c",
    data_dir="d",
    uptime_s=1.0,
    health=HealthReport(healthy=True, ready=True),
)

FILES = FilesReport(
    files=(
        FileReport(path="/var/log/small.log", source="nginx", state="open", size_bytes=10),
        FileReport(
            path=f"/var/log/large{ESCAPE}.log",
            source="pods",
            state="open",
            size_bytes=5000,
            positions=(PositionReport(output="main", offset=1000, behind_bytes=4000),),
        ),
    ),
    left_out=1,
)
