"""Two producers with key prefixing send a tensor of the same name to one database; a consumer gets both."""

import argparse
import asyncio
import sys
from pathlib import Path

from asim import Experiment
from asim.log import get_logger

HERE = Path(__file__).parent
logger = get_logger("Experiment Log")


async def main(programs: Path, python: str) -> str:
    """Run the three programs. Returns what the consumer printed."""
    async with Experiment("getting-started", launcher="auto") as exp:
        single_shard_db = exp.create_database(port=0, db_nodes=1, interface="lo")
        await exp.generate(single_shard_db, overwrite=True)
        await exp.start(single_shard_db)

        producer_settings_1 = exp.create_run_settings(exe=python, exe_args=[str(programs / "producer_1.py")])
        producer_1 = exp.create_model("producer_1", producer_settings_1)
        producer_1.enable_key_prefixing()

        producer_settings_2 = exp.create_run_settings(exe=python, exe_args=[str(programs / "producer_2.py")])
        producer_2 = exp.create_model("producer_2", producer_settings_2)
        producer_2.enable_key_prefixing()

        consumer_settings = exp.create_run_settings(exe=python, exe_args=[str(programs / "consumer.py")])
        consumer = exp.create_model("consumer", consumer_settings)
        consumer.disable_key_prefixing()
        consumer.register_incoming_entity(producer_1)  # or set_data_source("producer_1") would be refused
        consumer.register_incoming_entity(producer_2)
        consumer.after(producer_1, producer_2)  # or there might be nothing yet to get

        group = await exp.start(producer_1, producer_2, consumer, block=True, summary=True, check=True)

        await exp.stop(single_shard_db)
        logger.info(exp.summary())
        return str(group["consumer"].stdout.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smartredis", metavar="PYTHON", help="a Python that has SmartRedis: run its programs instead")
    chosen = parser.parse_args()
    folder = "smartredis_programs" if chosen.smartredis else "asim_programs"
    print(asyncio.run(main(HERE / folder, chosen.smartredis or sys.executable)), end="")
