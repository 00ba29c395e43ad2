"""The states of a job and of a group."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim.status import TERMINAL, JobState, combined

LIVE = (JobState.NEW, JobState.PENDING, JobState.RUNNING)
states = st.sampled_from(JobState)


def test_live_states_in_order() -> None:
    """A job goes from NEW over PENDING to RUNNING, may skip, and never goes back or stays."""
    for (earlier, before), (later, after) in product(enumerate(LIVE), repeat=2):
        assert after.follows(before) == (later > earlier)


def test_terminal_states() -> None:
    """An end follows whatever is live; nothing follows an end, not even another end."""
    assert {state for state in JobState if state.terminal} == TERMINAL == set(JobState) - set(LIVE)
    for end in TERMINAL:
        assert all(end.follows(state) for state in LIVE)
        assert not any(state.follows(end) for state in JobState)


def test_strict_order() -> None:
    """Following is irreflexive, asymmetric and transitive."""
    assert not any(state.follows(state) for state in JobState)
    assert not any(a.follows(b) and b.follows(a) for a, b in product(JobState, repeat=2))
    triples = [(a, b, c) for a, b, c in product(JobState, repeat=3) if b.follows(a) and c.follows(b)]
    assert triples
    assert all(c.follows(a) for a, _, c in triples)


@given(st.lists(states))
def test_news_in_any_order(news: list[JobState]) -> None:
    """Whatever news arrives in whatever order, a job that only follows is changed at most three times and ends once."""
    state, changes = JobState.NEW, []
    for told in news:
        if told.follows(state):
            state = told
            changes.append(told)
    assert len(changes) <= 3
    assert sum(change.terminal for change in changes) == state.terminal


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (JobState.NEW, "NeverStarted"),
        (JobState.PENDING, "Queued"),
        (JobState.RUNNING, "Running"),
        (JobState.COMPLETED, "Completed"),
        (JobState.FAILED, "Failed"),
        (JobState.CANCELLED, "Cancelled"),
        (JobState.TIMEOUT, "Failed"),
        (JobState.LOST, "Failed"),
    ],
)
def test_smartsim_words(state: JobState, word: str) -> None:
    """Every state has the word that SmartSim 0.8 uses."""
    assert state.smartsim == word


def test_text() -> None:
    """A state is written as its value, without the class."""
    assert f"{JobState.COMPLETED}" == "COMPLETED"
    assert JobState("LOST") is JobState.LOST


@pytest.mark.parametrize(
    ("members", "group"),
    [
        ([], JobState.NEW),
        ([JobState.NEW, JobState.NEW], JobState.NEW),
        ([JobState.NEW, JobState.PENDING], JobState.PENDING),
        ([JobState.PENDING, JobState.RUNNING], JobState.RUNNING),
        ([JobState.COMPLETED, JobState.PENDING], JobState.RUNNING),
        ([JobState.FAILED, JobState.RUNNING], JobState.RUNNING),
        ([JobState.COMPLETED, JobState.COMPLETED], JobState.COMPLETED),
        ([JobState.COMPLETED, JobState.CANCELLED], JobState.CANCELLED),
        ([JobState.CANCELLED, JobState.TIMEOUT], JobState.TIMEOUT),
        ([JobState.TIMEOUT, JobState.FAILED], JobState.FAILED),
        ([JobState.FAILED, JobState.LOST], JobState.LOST),
    ],
)
def test_combined(members: list[JobState], group: JobState) -> None:
    """A group runs until all ended, and then has the most alarming state."""
    assert combined(members) is group


@given(st.lists(states, min_size=1))
def test_combined_has_no_order(members: list[JobState]) -> None:
    """The order of the members does not matter; a group is at its end when, and only when, all its members are."""
    group = combined(members)
    assert combined(members[::-1]) is group
    assert group.terminal == all(state.terminal for state in members)


@given(states, st.integers(1, 5))
def test_combined_of_equals(state: JobState, count: int) -> None:
    """A group whose members agree has their state."""
    assert combined([state] * count) is state
