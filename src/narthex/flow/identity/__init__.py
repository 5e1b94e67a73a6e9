"""Who calls: what a credential must say, what it makes of its bearer, and what is answered where it does not do.

Pure: keys, documents and the time are handed in. `authority` fetches what must be fetched and asks these functions.
"""
