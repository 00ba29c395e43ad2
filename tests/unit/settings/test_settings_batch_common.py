"""What holds for the batch settings of every system: quoting, submit commands, preambles, errors, copies."""

from __future__ import annotations

import pytest

from asim.errors import ConfigError, ConfigTypeError
from asim.settings import (
    BatchContext,
    BatchSettings,
    BsubBatchSettings,
    QsubBatchSettings,
    SbatchSettings,
    SgeQsubBatchSettings,
)
from asim.settings.script import Member, Places

PLACES = Places(ends="/w/ends", stops="/w/stops", mark="t.1")
CONTEXT = BatchContext(name="job", stdout="/w/job.out", stderr="/w/job.err", places=PLACES)
KINDS = [SbatchSettings, lambda: QsubBatchSettings(nodes=1), BsubBatchSettings, SgeQsubBatchSettings]


@pytest.mark.parametrize("kind", [QsubBatchSettings, SgeQsubBatchSettings])
@pytest.mark.parametrize("value", [None, ""])
def test_pbs_and_sge_options_need_values(kind, value):
    """A forgotten value is an error there; True says that none is meant, 0 is one, False leaves the option out."""
    resources = {"nodes": 1} if kind is QsubBatchSettings else {}
    with pytest.raises(ConfigError, match=r"batch_args\['V'\]"):
        kind(resources=resources, batch_args={"V": value}).directives(CONTEXT)
    settings = kind(resources=resources, batch_args={"V": True, "p": 0, "x": False})
    assert settings.format_batch_args()[-2:] == ["-V", "-p 0"]


@pytest.mark.parametrize(
    ("settings", "argv"),
    [
        (SbatchSettings(), ("sbatch", "--parsable", "/s.sh")),
        (QsubBatchSettings(), ("qsub", "/s.sh")),
        (BsubBatchSettings(), ("bsub", "/s.sh")),
        (SgeQsubBatchSettings(), ("qsub", "/s.sh")),
    ],
)
def test_submit_commands(settings, argv):
    """Every system's submit command; a path to it can be set."""
    assert settings.submit_argv("/s.sh") == argv
    settings.set_batch_command("/opt/bin/submit")
    assert settings.submit_argv("/s.sh") == ("/opt/bin/submit", *argv[1:])


@pytest.mark.parametrize("make", KINDS)
def test_preamble_is_written_by_every_system(make):
    """Preamble lines stand as they are, after the directives and before the first member."""
    settings = make()
    settings.add_preamble("module load a  b")
    settings.add_preamble(["ulimit -s", "x"])
    member = Member(key=1, cwd="/w", argv=("x",), env=(("SSDB", "a:1"),))
    text = settings.script(CONTEXT, [member])
    assert "\n\nmodule load a  b\nulimit -s\nx\nexport SSDB=a:1\nset +efuC\n" in text
    assert text.endswith("\n(\nasim_member 1 /w '' '' 0 x\n) &\nasim_guard \"$!\"\n")
    head = text.partition("module")[0].splitlines()
    assert all(line.startswith("#") or not line for line in head)


@pytest.mark.parametrize("make", KINDS)
def test_directive_values_stay_one_value(make):
    """Blanks are quoted; a line break, which would start a directive or a command of its own, is refused."""
    settings = make()
    odd = BatchContext(name="job", stdout="/w x/job.out", stderr='/w "y"/e', places=PLACES)
    text = "\n".join(settings.directives(odd))
    assert '"/w x/job.out"' in text and "'/w \"y\"/e'" in text
    with pytest.raises(ConfigError, match="line break"):
        settings.directives(BatchContext(name="a\nrm -rf x", stdout="o", stderr="e", places=PLACES))
    settings.set_batch_arg("comment", "a\n#b")
    with pytest.raises(ConfigError, match="comment"):
        settings.directives(CONTEXT)


def test_line_breaks_in_hosts_are_refused():
    """Whatever a directive is made of, it stays one line."""
    settings = QsubBatchSettings(nodes=1)
    settings.set_hostlist(["a\nrm"])
    with pytest.raises(ConfigError, match="line break"):
        settings.directives(CONTEXT)


def test_quoted_values_are_not_quoted_again():
    """A value that the user quoted himself is left alone."""
    assert SbatchSettings(batch_args={"comment": "'a b'"}).format_batch_args() == ["--comment='a b'"]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: SbatchSettings(nodes="many"), ["nodes", "many"]),
        (lambda: SbatchSettings(node=1), ["node", "SbatchSettings"]),
        (lambda: SbatchSettings(batch_args={"a": []}), ["batch_args['a']"]),
        (lambda: SbatchSettings(batch_args={5: "a"}), ["batch_args name", "5"]),
        (lambda: SbatchSettings().add_preamble(5), ["lines", "5"]),
        (lambda: SbatchSettings().add_preamble(["a", 5]), ["lines[1]", "5"]),
        (lambda: SbatchSettings().set_hostlist([5]), ["host_list[0]", "5"]),
        (lambda: QsubBatchSettings(nodes="1.5"), ["nodes", "1.5"]),
        (lambda: QsubBatchSettings(ncpus="x"), ["ncpus", "x"]),
        (lambda: QsubBatchSettings(resources={"mem": 1.5}), ["resources['mem']", "1.5"]),
        (lambda: SgeQsubBatchSettings(resources={5: 1}), ["resource_name", "5"]),
        (lambda: BsubBatchSettings(smts="x"), ["smts", "x"]),
    ],
)
def test_wrong_types_are_refused_in_words(make, names):
    """A value of the wrong type is an error that names the field and the value."""
    with pytest.raises(ConfigTypeError) as caught:
        make()
    assert all(name in str(caught.value) for name in names)


def test_empty_option_name_is_refused():
    """An option needs a name."""
    with pytest.raises(ConfigError, match="batch_args name"):
        SbatchSettings(batch_args={"--": 1})


def test_setters_without_option_warn(caplog):
    """The base class has no options by name and says so."""
    settings = BatchSettings("submit", nodes=1, queue="q", time="1", account="a")
    settings.set_hostlist("h")
    assert settings.batch_args == {}
    missing = [record.getMessage() for record in caplog.records]
    assert [text.split()[5] for text in missing] == [
        "set_nodes:",
        "set_queue:",
        "set_walltime:",
        "set_account:",
        "set_hostlist:",
    ]


@pytest.mark.parametrize("make", KINDS)
def test_copy_is_independent(make):
    """Changing a copy leaves the original as it was."""
    original = make()
    before = original.directives(CONTEXT)
    twin = original.copy()
    twin.add_preamble("x")
    twin.set_batch_arg("p", "1")
    twin.set_walltime("10:00")
    assert type(twin) is type(original)
    assert (original.preamble, original.directives(CONTEXT)) == ([], before)
    assert len(twin.directives(CONTEXT)) == len(before) + 2
