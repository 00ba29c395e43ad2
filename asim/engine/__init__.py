"""The engine: a C module that gives a real redis-server the AI.* commands, and how it is built."""
