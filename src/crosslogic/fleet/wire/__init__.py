"""The messages between node agents and control, generated from node_agent.proto."""
