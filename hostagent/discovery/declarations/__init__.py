"""What containers say about their own logs, in environment, labels and annotations: found, judged, held to limits.

`dialects` and `annotation` find the texts, `judge` makes declarations of them, `formats`, `patterns` and `paths` know
what each may hold. All of it is a tenant's text; nothing here touches a file.
"""
