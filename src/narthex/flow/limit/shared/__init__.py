"""Counters that several gateways share: what is asked of the server that keeps them, and how it counts (Lua)."""
