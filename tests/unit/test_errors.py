"""The classes of errors, and what they carry."""

from __future__ import annotations

import inspect
from errno import EACCES

import pytest

from asim import errors
from asim.errors import AsimError, FileActionError, JobFailed, SubmitError, allowed


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.ConfigTypeError, TypeError),
        (errors.ConfigTypeError, ValueError),
        (errors.MissingFileError, FileNotFoundError),
        (errors.EntityExistsError, FileExistsError),
        (errors.TemplateError, ValueError),
        (errors.UserStrategyError, ValueError),
        (errors.MissingExtraError, ImportError),
        (errors.FileActionError, OSError),
    ],
)
def test_built_in_classes(error: type[Exception], builtin: type[Exception]) -> None:
    """Who catches the built-in exception catches asim's, and its text is whole."""
    with pytest.raises(builtin, match="^the text$") as caught:
        raise error("the text")
    assert isinstance(caught.value, AsimError)


def test_one_root() -> None:
    """Every class of the module derives from AsimError, so one except clause catches all."""
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == "asim.errors"]
    assert len(classes) > 10
    assert [kind for kind in classes if not issubclass(kind, AsimError)] == []


def test_permanent_and_machinery_are_apart() -> None:
    """What the input did wrong is a ConfigError; what the machinery did wrong is none."""
    permanent = (errors.MissingFileError, errors.EntityExistsError, errors.TemplateError, errors.UserStrategyError)
    assert all(issubclass(kind, errors.ConfigError) for kind in permanent)
    others = (errors.FileActionError, errors.AgentError, errors.SubmitError, errors.JobFailed, errors.UnsupportedError)
    assert not any(issubclass(kind, errors.ConfigError) for kind in others)


def test_file_action_error() -> None:
    """It has errno and filename as an OSError has, and its text is the message alone."""
    error = FileActionError("cannot make /x: Permission denied", EACCES, "/x")
    assert (error.errno, error.filename) == (EACCES, "/x")
    assert str(error) == "cannot make /x: Permission denied"


def test_file_action_error_without_details() -> None:
    """The number and the path may be unknown."""
    error = FileActionError("no space")
    assert (error.errno, error.filename, str(error)) == (None, None, "no space")


def test_submit_error() -> None:
    """It is permanent unless it says otherwise."""
    assert not SubmitError("no").transient
    assert SubmitError("busy", transient=True).transient


def test_job_failed() -> None:
    """It carries the jobs as a tuple of its own."""
    jobs = ["a"]
    error = JobFailed("1 job(s) did not complete", jobs)
    jobs.append("b")
    assert error.jobs == ("a",)
    assert JobFailed("none").jobs == ()


def test_allowed() -> None:
    """The wording of bad input names the field, shows the value as Python writes it, and says what is allowed."""
    assert allowed("db_nodes", "2", "must be 1, or 3 or more") == "db_nodes = '2': must be 1, or 3 or more"
