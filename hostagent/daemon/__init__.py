"""The composition root: the only folder that knows every stage.

`agent` joins the stages and runs them, `wiring` builds them from a configuration, `finding` runs the discoveries,
`reloading` takes over a changed configuration, `reports` says how things are, the folder `audit` does the sum of all
bytes. Start reading in `agent`.
"""
