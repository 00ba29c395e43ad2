"""The agent: the one program that starts, watches and stops processes for a driver (see :mod:`asim.agent.main`)."""
