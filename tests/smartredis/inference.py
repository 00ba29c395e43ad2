"""An application with SmartRedis: every operation on models and scripts. Runs under SmartRedis' own interpreter.

Usage: ``inference.py TASKS.json RESULTS.json``. A task is a model: its file, backend, names of a TF graph's nodes, inputs.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import numpy as np
from smartredis import Client

SCRIPT = "def twice(x):\n    return 2 * x\n\ndef both(x, y):\n    return x + y, x - y\n"


def thrice(x):
    return 3 * x


def refused(call, *args):
    """The text of the error that this must be."""
    try:
        call(*args)
    except Exception as exc:  # noqa: BLE001  (SmartRedis has many)
        return str(exc)
    raise AssertionError(f"{call.__name__}{args} should have been refused")


def model(client, task, uploaded):
    """Store a model in both ways, run it, read it, delete it."""
    name, blob = task["name"], Path(task["file"]).read_bytes()
    names = [task.get("inputs") or None, task.get("outputs") or None]
    keys = []
    for number, values in enumerate(task["arrays"]):
        keys.append(f"{name}-in-{number}")
        client.put_tensor(keys[-1], np.array(values, task["dtype"]))
    client.set_model_from_file(name, task["file"], task["backend"], "CPU", 0, 0, 0, "from file", *names)
    client.set_model_chunk_size(1000)  # the second one comes in pieces
    client.set_model(name + "-2", blob, task["backend"], "CPU", 4, 0, 0, "", *names)
    assert client.get_model(name + "-2") == blob, "get_model in pieces"
    client.set_model_chunk_size(511 << 20)
    assert client.model_exists(name) and client.poll_model(name, 10, 10)
    assert client.get_model(name) == blob, "get_model"
    found = []
    for stored in (name, name + "-2", *uploaded):
        client.run_model(stored, keys, [f"{stored}-out"])
        found.append(client.get_tensor(f"{stored}-out").tolist())
    client.delete_model(name + "-2")
    assert not client.model_exists(name + "-2")
    assert "model key is empty" in refused(client.run_model, name + "-2", keys, ["y"])
    assert "tensor key is empty" in refused(client.run_model, name, ["no such tensor"] * len(keys), ["y"]) or CLUSTER
    assert "does not match model definition" in refused(client.run_model, name, keys * 2, ["y"])
    return found


def scripts(client, place, uploaded):
    """Store a script in three ways, run it, read it, delete it."""
    x, y = np.array([1.0, 2.0], np.float32), np.array([10.0, 20.0], np.float32)
    client.put_tensor("sx", x)
    client.put_tensor("sy", y)
    path = Path(place) / "script.py"
    path.write_text(SCRIPT)
    client.set_script("script", SCRIPT, "CPU")
    client.set_script_from_file("script-file", str(path), "CPU")
    client.set_function("function", thrice, "CPU")
    assert client.get_script("script") == SCRIPT
    for name in ("script", "script-file"):
        client.run_script(name, "twice", ["sx"], ["so"])
        np.testing.assert_array_equal(client.get_tensor("so"), 2 * x)
        client.run_script(name, "both", ["sx", "sy"], ["so", "sp"])
        np.testing.assert_array_equal(client.get_tensor("sp"), x - y)
    for name, function in (("function", "thrice"), *uploaded):
        client.run_script(name, function, ["sx"], ["so"])
    found = client.get_tensor("so").tolist()
    assert "Function does not exist: none" in refused(client.run_script, "script", "none", ["sx"], ["so"])
    assert refused(client.set_script, "bad", "this is no script", "CPU")
    client.delete_script("script-file")
    assert "script key is empty" in refused(client.run_script, "script-file", "twice", ["sx"], ["so"])
    return found


def information(client, name):
    """The statistics of a model, and their end."""
    address = os.environ["SSDB"].split(",")[0]
    (before,) = client.get_ai_info([address], name)
    (after,) = client.get_ai_info([address], name, True)
    return {"backend": before["backend"], "calls": before["calls"], "tag": before["tag"], "reset": after["calls"]}


CLUSTER = os.environ.get("SR_DB_TYPE", "").lower() == "clustered"


def main():
    """Do everything; the results, or the traceback, go to the file."""
    with open(sys.argv[1], encoding="utf-8") as file:
        asked = json.load(file)
    client = Client()
    results = {}
    try:
        for task in asked["models"]:
            results[task["name"]] = model(client, task, asked["uploaded"].get(task["name"], []))
        if asked["scripts"]:
            results["scripts"] = scripts(client, asked["place"], asked["uploaded_scripts"])
        results["info"] = information(client, asked["models"][0]["name"])
    except Exception:  # noqa: BLE001  (told by the test)
        results["error"] = traceback.format_exc()
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(results, file)


main()
