"""Puts a tensor that every producer calls "tensor" into the database, as producer_2."""

import numpy as np
from smartredis import Client

# Initialize a Client
client = Client(cluster=False)

# Create NumPy array
array = np.array([1, 2, 3, 4])
# Use SmartRedis client to place tensor in single sharded db
client.put_tensor("tensor", array)
