//! Messages and services of the agent, shared by shim and agent.
