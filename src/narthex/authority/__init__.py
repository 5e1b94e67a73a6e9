"""Whom we ask and what we hold: secrets, keys, and the parties that issue tokens. Does I/O; nothing here is asked to
do so on the path of a call."""
