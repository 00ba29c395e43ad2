"""The table of operations: each is one generator here, and one line in each face of the client."""
