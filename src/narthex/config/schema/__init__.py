"""The one configuration schema: each key's kind, default, bounds, help and secrecy stand here and nowhere else.

One file a section; `root` has `Settings`, the whole. `load` reads a file by them, `compile` makes a `Snapshot` of them,
`render` writes the JSON Schema and the reference. A key whose part is not built yet stands here as `later(…)` and is
refused. Proof: `tests/config/test_schema.py`, `tests/docs/test_reference.py`.
"""
