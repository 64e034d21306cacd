"""The source type `containers`: from the runtimes' containers to the targets that are to be read.

Begin with `source`, which joins the rest: `chosen_runtimes` says whom to follow, `filters` which containers count,
`targets` what of each is read, `paths` where that lies on the host, `claims` who a shared file belongs to.
"""
