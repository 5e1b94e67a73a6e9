"""Answers that are kept and given again to equal calls: which, for whom, for how long, and what ends them. Pure."""
