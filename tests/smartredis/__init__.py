"""The real SmartRedis client as a subprocess: its interpreter has an older numpy."""
