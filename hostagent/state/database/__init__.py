"""The one SQLite database: its tables, how it is made, upgraded, checked and brought back.

Begin with `live`, the connection that the checkpoint has. `recovery`, `schema` and `connections` are the way to it. The
others are statements, table by table: of files `files`, `positions` and `totals`, of blocks `inflight`, `listing` (what
the spools should hold) and `reclaims` (what they have lost), and the loss `ledger`.
"""
