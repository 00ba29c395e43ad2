"""How the driver reaches an agent."""
