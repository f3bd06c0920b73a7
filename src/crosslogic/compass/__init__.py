"""The planner: from a conversation to a deployment whose latency and cost come true.

In Python: `from crosslogic.compass.plan import plan`, then `plan("a chatbot for 1000 users")`.
"""
