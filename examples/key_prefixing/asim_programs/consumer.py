"""Gets the tensors of both producers, which have the same name, from one database."""

import asyncio

from asim import Client


async def main() -> None:
    async with Client.from_env() as client:
        client.set_data_source("producer_1")
        print("1:", await client.get_tensor("tensor"))
        client.set_data_source("producer_2")
        print("2:", await client.get_tensor("tensor"))


asyncio.run(main())
