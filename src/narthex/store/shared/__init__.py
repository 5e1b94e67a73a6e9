"""What several gateways share, in Valkey or Redis: the connection to it, and the counters of limits."""
