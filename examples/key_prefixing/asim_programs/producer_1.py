"""Puts a tensor that every producer calls "tensor" into the database, as producer_1."""

import numpy as np

from asim import SyncClient

with SyncClient.from_env() as client:
    client.put_tensor("tensor", np.array([5, 6, 7, 8]))
