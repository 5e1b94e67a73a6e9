"""The store in PostgreSQL: the same rows and the same statements as in a file, for several gateways together."""
