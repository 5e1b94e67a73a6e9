"""How much: rates, quotas and budgets. What a call may use is reserved just before it is sent, and settled after it."""
