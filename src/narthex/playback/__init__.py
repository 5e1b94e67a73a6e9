"""A recorded run that answers in the place of its servers: what a dry replay serves to an agent."""
