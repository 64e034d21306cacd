"""The outputs that need no dependency: http, file, stdout, blackhole.

Each speaks to one kind of backend and says in TemporaryError, PermanentError or a Verdict how it went. None of them
knows about positions, retries or what becomes of a refused record.
"""
