"""What is kept beyond a call: API keys and sealed secrets. `port` says what a store can do; each store is one file."""
