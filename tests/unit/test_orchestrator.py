"""Databases as entities, and what planning makes of them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from asim import Model, Orchestrator, RunSettings
from asim.database.address import Address
from asim.database.config import NodeConfig, new_id, nodes_conf, quoted, redis_conf, report_of, slot_ranges
from asim.database.environment import application_environment
from asim.database.security import rules, worker_rule
from asim.errors import AsimError, ConfigError, ConfigTypeError, DatabaseError, EntityExistsError, UnsupportedError
from asim.members import databases
from asim.plan import Facts, LaunchPlan
from asim.planner import Planner

from .makers import CONTEXT, file, found, model


def planned(*entities: Any, **about: Any) -> LaunchPlan:
    """The plan for databases (and models) alone."""
    ctx = replace(CONTEXT, **about)
    programs = {"sh": "/bin/sh", "/bin/prog": "/bin/prog"}
    planner = Planner(ctx, Facts(programs=programs, sources=found(file("/data.rdb"))))
    models = [(entity, None) for entity in entities if isinstance(entity, Model)]
    list(planner.start(models, [], databases(entities)))
    return planner.plan


# -- the entity


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"db_nodes": 0}, "orchestrator: db_nodes = 0"),
        ({"db_nodes": "3"}, "orchestrator: db_nodes = '3'"),
        ({"port": -1}, "orchestrator: port = -1"),
        ({"port": 65536}, r"orchestrator: port = 65536: must be 0 \(any free one\) to 65535"),
        ({"port": 60000, "db_nodes": 3}, r"port = 60000: must be 0 .* to 55533 .* port \+ 10000"),
        ({"interface": ""}, "orchestrator: interface = ''"),
        ({"interface": 3}, "orchestrator: interface = 3"),
        ({"db_identifier": "a b"}, "db_identifier = 'a b'"),
        ({"db_identifier": ""}, "db_identifier = ''"),
        ({"run_command": "srun"}, "orchestrator: run_command = 'srun': with local it must be auto or ''"),
        ({"load_from": ["a", "b"]}, "orchestrator: load_from = .*: must be one RDB file per shard, that is 1"),
        ({"unix_socket": "a b"}, "orchestrator: unix_socket = 'a b'"),
        ({"load_from": "x", "appendonly": True}, "orchestrator: appendonly = 'yes': Redis loads nothing else"),
        ({"unix_socket": "/" + "x" * 107}, "1 to 107 of the characters"),
        ({"time": "1:00:00"}, "orchestrator: time = '1:00:00': is for a batch job"),
        ({"requirepass": "x"}, "orchestrator: Redis option = 'requirepass': is decided by asim"),
        ({"dir": "/"}, "orchestrator: Redis option = 'dir'"),
        ({"save": "a\nb"}, "line break"),
        ({"launcher": "nonsense"}, "launcher = 'nonsense'"),
    ],
)
def test_bad_values_are_refused(fields: dict[str, Any], text: str) -> None:
    """A value that can never work is refused at once, with its field, its value and what is allowed."""
    with pytest.raises(ConfigError, match=text):
        Orchestrator(**fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"db_nodes": 2}, "db_nodes = 2: must be 1, or 3 and more"),
        ({"batch": True}, "launcher = 'local': has no batch jobs"),
        ({"hosts": ["a"]}, "hosts = .*: the local launcher has this host only"),
        ({"db_nodes": 3, "unix_socket": "/tmp/s"}, "clients reach a cluster by TCP only"),
    ],
)
def test_unsupported_combinations(fields: dict[str, Any], text: str) -> None:
    """What no server or launcher can do is refused with the reason."""
    with pytest.raises(UnsupportedError, match=text):
        Orchestrator(**fields)


def test_shards_are_named_after_the_database() -> None:
    """Shard i of database x is the job x_i, and does not prefix keys."""
    database = Orchestrator(db_nodes=3, db_identifier="x")
    assert [shard.name for shard in database.entities] == ["x_0", "x_1", "x_2"]
    assert (database.num_shards, database.db_nodes, database.is_cluster) == (3, 3, True)
    assert not any(shard.query_key_prefixing() for shard in database.models)
    assert [shard.type for shard in database.models] == ["DBNode"] * 3


@pytest.mark.parametrize("what", ["get_address", "checkpoint_file"])
def test_a_database_that_does_not_run_has_no_address(what: str) -> None:
    """Asking where it is raises, rather than answering with a guess."""
    with pytest.raises(DatabaseError, match="orchestrator is not running"):
        found = getattr(Orchestrator(), what)
        found()


def test_a_database_waits_for_nothing() -> None:
    """A database that waits for a model could never be waited for by one."""
    with pytest.raises(UnsupportedError, match="it cannot wait"):
        Orchestrator().after(model())


def test_nothing_waits_for_the_end_of_a_database() -> None:
    """Only "running" makes sense; anything else would wait for ever, and is refused with what to say instead."""
    for when in ("completed", "ended"):
        with pytest.raises(ConfigError, match="m: after = 'orchestrator': is a database.* say when='running'"):
            model().after(Orchestrator(), when=when)  # type: ignore[arg-type]


def test_settings_of_the_engine_reach_the_node() -> None:
    """Settings for inference are in what the node is told, under its own names, and are no warning."""
    plan = planned(Orchestrator(threads_per_queue=2, intra_op_parallelism=3, worker_memory="2gb", workers_per_device=4))
    config = plan.databases[0].config
    assert (config.threads_per_queue, config.intra_op_threads, config.worker_memory) == (2, 3, 2 << 30)
    assert config.workers_per_device == 4
    assert not plan.warnings


@pytest.mark.parametrize(
    ("name", "value"), [("workers_per_device", 0), ("worker_memory", "much"), ("model_execution_timeout", -1)]
)
def test_settings_of_the_engine_are_checked(name: str, value: Any) -> None:
    """A setting that no worker could have is refused with its name."""
    with pytest.raises(ConfigError, match=name):
        Orchestrator(**{name: value})


def test_scheduler_arguments() -> None:
    """Run and batch arguments go to the settings; those that asim itself gives are refused."""
    database = Orchestrator(launcher="slurm", run_command="srun", batch=True, hosts=["n1", "n2"], account="a")
    database.set_cpus(4)
    database.set_walltime("01:00:00")
    database.set_batch_arg("exclusive")
    database.set_run_arg("exclusive")
    assert database.run_settings.run_args["cpus-per-task"] == 4
    assert database.batch_settings is not None and "exclusive" in database.batch_settings.batch_args
    assert database.hosts == ["n1", "n2"]
    database.reset_hosts()
    assert database.hosts == []
    with pytest.raises(ConfigError, match="batch argument = 'nodes': asim itself gives"):
        database.set_batch_arg("nodes", "3")
    with pytest.raises(ConfigError, match="run argument = '--nodes': asim itself gives"):
        database.set_run_arg("--nodes", "3")


def test_arguments_of_a_local_database() -> None:
    """A local database has neither a run command nor a batch job that could take arguments."""
    with pytest.raises(UnsupportedError, match="started without a run command"):
        Orchestrator().set_run_arg("x")
    with pytest.raises(UnsupportedError, match="is no batch job"):
        Orchestrator().set_batch_arg("x")
    with pytest.raises(UnsupportedError, match="is no batch job"):
        Orchestrator().set_walltime("1:00:00")


# -- the plan


def test_plan_of_a_cluster() -> None:
    """Shards on one host take consecutive ports, and share one configuration file."""
    plan = planned(Orchestrator(port=7000, db_nodes=3, maxmemory="1gb"), path="/exp", python="/py")
    (database,) = plan.databases
    assert list(database.config.ports) == [7000, 7001, 7002]
    assert len(set(database.config.node_ids)) == 3
    assert database.config.directory == "/exp/orchestrator"
    assert database.config.options == {"maxmemory": "1gb"}
    argv = database.jobs[2].argv
    assert argv == ("/py", "-P", "-m", "asim.database.node", "/exp/orchestrator/.asim-orchestrator.json", "2")


def test_clusters_have_ids_of_their_own() -> None:
    """No node of one cluster has the id of a node of another, as Redis knows nodes by their ids."""
    plan = planned(Orchestrator(port=0, db_nodes=3), Orchestrator(port=0, db_nodes=3, db_identifier="two"))
    assert len({one for database in plan.databases for one in database.config.node_ids}) == 6


def test_any_port_is_any_port_for_every_shard() -> None:
    """Port 0 stays 0: each node looks for a free one."""
    plan = planned(Orchestrator(port=0, db_nodes=3))
    assert list(plan.databases[0].config.ports) == [0, 0, 0]


def test_two_databases_of_one_name() -> None:
    """A name that runs already is refused, whether it is known as an address or as a busy job."""
    with pytest.raises(EntityExistsError, match="db_identifier = 'orchestrator'"):
        planned(Orchestrator(), databases=[Address(identifier="orchestrator", hosts=("h:1",))])
    with pytest.raises(EntityExistsError, match="db_identifier = 'orchestrator'"):
        planned(Orchestrator(), busy={"orchestrator_0"})


def test_two_databases_of_one_port() -> None:
    """Databases of one start that want the same port are refused before anything is started; other interfaces are fine."""
    first = Orchestrator(port=7000, db_nodes=3)
    with pytest.raises(ConfigError, match="two: port = 7002: orchestrator, started with it, has this port"):
        planned(first, Orchestrator(port=7002, db_identifier="two"))
    planned(
        first, Orchestrator(port=7003, db_identifier="two"), Orchestrator(port=7000, interface="x", db_identifier="x")
    )


def test_a_database_for_another_launcher() -> None:
    """A database made for slurm is refused by a local experiment."""
    with pytest.raises(ConfigError, match="launcher = 'slurm': this experiment's launcher is local"):
        planned(Orchestrator(launcher="slurm", run_command="srun"))


def test_a_model_may_wait_for_a_database() -> None:
    """``after(db, when="running")`` is no unknown dependency."""
    database, one = Orchestrator(), model()
    one.after(database, when="running")
    assert planned(database, one).jobs[0].waits == ((database, "running"),)


# -- colocated


def test_a_colocated_program_is_run_through_asim() -> None:
    """The program and every argument follow "--", one item each, whatever is in them."""
    one = Model("m", {}, RunSettings("sh", ["-c", "echo '$HOME'\n\"x y\""], env_vars={"A": 1, "PYTHONPATH": "/mine"}))
    one.colocate_db_tcp(port=0, ifname="eth9", db_cpus=2, custom_pinning=[1], debug=True, maxmemory="1mb")
    plan = planned(one, python="/py", path="/exp")
    (job,) = plan.jobs
    path = "/exp/.asim/m.colocated.json"
    assert job.argv[:6] == ("/py", "-P", "-m", "asim.database.colocated", path, "--")
    assert job.argv[6:] == ("/bin/sh", "-c", "echo '$HOME'\n\"x y\"")
    told = json.loads(plan.files[path])
    assert told["ports"] == [0] and told["interfaces"] == ["lo", "eth9"] and told["cpus"] == [1]
    assert told["log"].endswith("/m-db.log") and told["options"] == {"maxmemory": "1mb"}
    identifier, env, objects = told.pop("identifier"), told.pop("env"), told.pop("objects")
    assert (identifier, env, objects) == ("", {"PYTHONPATH": "/mine"}, [])
    assert dict(job.env) == {"A": "1"}  # what changes Python must not change asim's own
    NodeConfig.from_json(json.dumps({**told, "run": "", "directory": "", "secret": ""}))


def test_a_colocated_database_needs_variables_of_its_own() -> None:
    """Two databases that would both be SSDB are refused, and the text names the other."""
    one = model()
    one.colocate_db_tcp()
    with pytest.raises(ConfigError, match="m: db_identifier = '': the database orchestrator has the same variables"):
        planned(one, Orchestrator())
    planned(one, Orchestrator(db_identifier="other"))


# -- the environment


def told(one: Model, *addresses: Address, own: Any = (), outside: Any = None) -> dict[str, str | None]:
    return dict(application_environment(one, addresses, own, outside or {}))


def test_environment_without_databases() -> None:
    """A job that uses no database gets the very environment that its settings have: members can share it."""
    own = (("A", "1"),)
    assert application_environment(model(), [], own, {"PATH": "x"}) is own


def test_environment_of_a_standard_database() -> None:
    """SSDB, SR_DB_TYPE, the key prefix, and a socket timeout that inference does not exceed."""
    found = told(model("a"), Address(identifier="orchestrator", hosts=("h:1",)))
    assert found == {"SSDB": "h:1", "SR_DB_TYPE": "Standalone", "SR_SOCKET_TIMEOUT": "60000", "SSKEYOUT": "a"}


def test_environment_of_a_named_cluster() -> None:
    """Every variable of a named database has its suffix; a cluster is "Clustered"."""
    one = model("a")
    one.register_incoming_entity(model("p"))
    found = told(one, Address(identifier="x", hosts=("h:1", "h:2", "h:3")))
    assert found["SSDB_x"] == "h:1,h:2,h:3" and found["SR_DB_TYPE_x"] == "Clustered"
    assert found["SSKEYIN_x"] == found["SSKEYIN"] == "p" and found["SSKEYOUT_x"] == "a"


def test_no_prefix_when_it_is_off() -> None:
    """A model with key prefixing off has no SSKEYOUT."""
    one = model("a")
    one.disable_key_prefixing()
    assert "SSKEYOUT" not in told(one, Address(identifier="orchestrator", hosts=("h:1",)))


def test_an_incoming_ensemble_stands_for_its_members() -> None:
    """The keys of an ensemble begin with its members' names, so these are the sources."""
    from asim import Ensemble

    one = model("a")
    one.register_incoming_entity(Ensemble("e", run_settings=RunSettings("sh"), replicas=2))
    assert told(one, Address(identifier="orchestrator", hosts=("h:1",)))["SSKEYIN"] == "e_0,e_1"


def test_what_the_user_set_stays() -> None:
    """Variables of the run settings, and a socket timeout of the driver's environment, are not overwritten."""
    address = Address(identifier="orchestrator", hosts=("h:1",))
    assert told(model("a"), address, own=(("SSDB", "mine:1"),))["SSDB"] == "mine:1"
    assert "SR_SOCKET_TIMEOUT" not in told(model("a"), address, outside={"SR_SOCKET_TIMEOUT": "9"})


def test_a_database_that_asim_did_not_start() -> None:
    """With SSDB in the driver's environment, models get their key prefixes and nothing else."""
    assert told(model("a"), outside={"SSDB": "h:1"}) == {"SSKEYOUT": "a"}
    assert told(model("a"), outside={"SSDB_x": "h:1"}) == {"SSKEYOUT": "a", "SSKEYOUT_x": "a"}


# -- texts


def node(**fields: Any) -> NodeConfig:
    given = {"name": "o", "run": "r", "directory": "/d x", "ports": [7000], "interfaces": ["lo"], "secret": "s"}
    return NodeConfig(**{**given, **fields})


def test_node_config_survives_json() -> None:
    """What the driver writes is what the node reads."""
    config = node(module_args=[], options={"save": "1 1"}, cpus=[1], node_ids=["a"], load_from=["/x"], socket="/s")
    assert NodeConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', '{"name": "a"}', "nonsense"])
def test_a_broken_node_config(text: str) -> None:
    """Anything else is refused with the list of fields."""
    with pytest.raises(AsimError, match="no configuration of a database node"):
        NodeConfig.from_json(text)


def test_redis_conf() -> None:
    """The listening addresses, the socket, the engine, the users and the user's options are in it; no secret is."""
    config = node(module="/e x.so", options={"save": "900 1", "appendfilename": ""}, socket="/s", secret="hush")
    text = redis_conf(config, 0, 7000, ["127.0.0.1", "::1"])
    lines = text.splitlines()
    assert 'dir "/d x/o_0"' in lines and "bind 127.0.0.1 ::1" in lines and "port 7000" in lines
    assert 'loadmodule "/e x.so"' in lines and "save 900 1" in lines and 'appendfilename ""' in lines
    assert "user default off" in lines and 'unixsocket "/s"' in lines
    assert "hush" not in text and "cluster-enabled" not in text
    assert "notify-keyspace-events Kl" in lines
    chosen = redis_conf(node(options={"notify-keyspace-events": "KEA"}), 0, 7000, ["::1"]).splitlines()
    assert chosen[-1] == "notify-keyspace-events KEA"  # the last one counts
    assert "cluster-announce-ip 10.0.0.1" in redis_conf(node(node_ids=["a"]), 0, 7000, ["10.0.0.1"])


def test_the_workers_log() -> None:
    """It is beside the server's, wherever that is; two files of one name would be one."""
    assert node().workers_log(0) == "/d x/o_0/workers.log"
    assert node(log="/w/m-db.log").workers_log(0) == "/w/m-db-workers.log"


def test_what_workers_may() -> None:
    """A worker's user may do a worker's commands, has no keys, and its password is not in the rule."""
    rule = worker_rule("hush")
    assert rule[:3] == ("asim-worker", "reset", "on") and "hush" not in " ".join(rule)
    assert set(rule[4:]) == {"resetkeys", "resetchannels", "-@all", "+asim.next", "+asim.done", "+asim.fetch"}


@pytest.mark.parametrize(
    ("text", "shown"), [("a b", '"a b"'), ('"\\', '"\\x22\\x5c"'), ("ä\n", '"\\xc3\\xa4\\x0a"'), ("", '""')]
)
def test_quoting(text: str, shown: str) -> None:
    """Any text is one word of redis.conf."""
    assert quoted(text) == shown


@pytest.mark.parametrize("shards", [1, 3, 4, 7, 100])
def test_slot_ranges_cover_everything_once(shards: int) -> None:
    """Every slot belongs to exactly one shard."""
    slots = [slot for first, last in slot_ranges(shards) for slot in range(first, last + 1)]
    assert slots == list(range(16384))


def test_three_shards_split_as_redis_does() -> None:
    """The usual three ranges: SmartRedis' node prefixes follow from them."""
    assert slot_ranges(3) == [(0, 5460), (5461, 10922), (10923, 16383)]


def test_nodes_conf() -> None:
    """A shard starts as a replica of a node that has all slots and is not there."""
    config = node(node_ids=[new_id("r", 0)])
    me, absent, epoch = nodes_conf(config, 0, "1.2.3.4", 7000).splitlines()
    assert me.startswith(f"{config.node_ids[0]} 1.2.3.4:7000@17000 myself,slave {absent.split()[0]} ")
    assert absent.endswith("0-16383") and epoch.startswith("vars ")


def test_reports() -> None:
    """A report of another deployment, or half a one, is none."""
    assert report_of(b'{"run": "r", "port": 1}', "r") == {"run": "r", "port": 1}
    assert report_of(b'{"run": "old"}', "r") is None
    assert report_of(b'{"run": "r"', "r") is None
    assert report_of(b"[]", "r") is None


def test_rules_switch_the_user_on_last() -> None:
    """Nobody can come in while the rules are half told; what is dangerous is taken away before anything is given back."""
    listed = [words for words, _ in rules()]
    assert listed[-1] == ("on",)
    assert listed[0].index("+@write") < listed[0].index("-@dangerous")
    assert not {"+eval", "+module", "+debug", "+replicaof", "+shutdown", "+migrate", "+restore", "+acl", "+config"} & {
        word for words in listed for word in words
    }


def test_wrong_types_at_the_edge() -> None:
    """Types are checked, too."""
    with pytest.raises(ConfigTypeError):
        Orchestrator(db_identifier=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigTypeError):
        Orchestrator(interface=["lo", 3])  # type: ignore[list-item]


class Handle:
    """A running database that writes down what it is asked."""

    def __init__(self) -> None:
        self.addresses, self.hosts, self.checkpoint = ["h:1"], ["h"], "/c.json"
        self.asked: list[tuple[str, str]] = []

    async def alive(self) -> bool:
        return True

    async def configure(self, name: str, value: str) -> None:
        self.asked.append((name, value))

    async def remove_stale_files(self) -> None:
        self.asked.append(("remove", ""))


def finish(work: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError


def test_setters_of_a_running_database() -> None:
    """Each setter is one CONFIG SET in Redis' words; the address is what the handle says."""
    database, handle = Orchestrator(), Handle()
    database._handle = handle
    for work in (
        database.enable_checkpoints(60), database.set_max_memory("3gb"), database.set_eviction_strategy("allkeys-lru"),
        database.set_max_clients(), database.set_max_message_size(), database.set_db_conf("hz", 20), database.remove_stale_files(),
    ):  # fmt: skip
        finish(work)
    assert handle.asked == [
        ("save", "60 1"), ("maxmemory", "3gb"), ("maxmemory-policy", "allkeys-lru"), ("maxclients", "50000"),
        ("proto-max-bulk-len", "1073741824"), ("hz", "20"), ("remove", ""),
    ]  # fmt: skip
    assert (database.get_address(), database.hosts, database.checkpoint_file) == (["h:1"], ["h"], "/c.json")
    assert finish(database.is_active())


@pytest.mark.parametrize(("key", "value"), [(3, "x"), ("save", True), ("save", None), ("save", b"x")])
def test_settings_of_a_wrong_type(key: Any, value: Any) -> None:
    """Names and values that Redis could not take are refused before anything is sent."""
    database, handle = Orchestrator(), Handle()
    database._handle = handle
    with pytest.raises(ConfigTypeError):
        finish(database.set_db_conf(key, value))
    assert handle.asked == []


def test_what_is_not_running_cannot_be_set() -> None:
    """A setter of a database that does not run raises; asking whether it is active does not."""
    with pytest.raises(DatabaseError, match="is not running"):
        finish(Orchestrator().set_max_memory(1))
    assert finish(Orchestrator().is_active()) is False


def test_preview_shows_databases() -> None:
    """Text and JSON tell where a database will be, what it is told, and how its shards are run."""
    from asim.preview import as_dict, as_text

    plan = planned(Orchestrator(port=0, save="1 1", load_from="/data.rdb"), path="/exp", python="/py")
    text = as_text(plan, "info", "plain_text")
    assert "Database orchestrator\n  in        /exp/orchestrator\n  listens   on lo\n" in text
    assert "  option    save 1 1\n" in text and "  loads     /data.rdb\n" in text
    assert "shard     orchestrator_0, port any free one: /py -P -m asim.database.node" in text
    assert as_dict(plan)["databases"][0]["shards"][0]["stdout"] == "/exp/orchestrator/orchestrator_0.out"


def test_applications_are_told_in_the_plan() -> None:
    """Only jobs whose environment changes get a new one."""
    from asim.database.planning import tell_applications

    plan = planned(model("a"))
    before = plan.jobs[0]
    list(tell_applications(plan, []))
    assert plan.jobs[0] is before
    list(tell_applications(plan, [Address(identifier="orchestrator", hosts=("h:1",))]))
    assert dict(plan.jobs[0].env)["SSDB"] == "h:1"
