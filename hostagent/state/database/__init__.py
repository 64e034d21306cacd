"""The one SQLite database: its tables, how it is made, upgraded, checked and brought back."""
