"""The admin side: an API, metrics and health on a listener of their own. `server.AdminServer` runs it.

Nothing here is imported until it is started: Starlette and uvicorn are for this side alone.
"""
