"""The shell script of a batch job: its members' commands, and what they tell of themselves. POSIX sh.

Each member leaves two small files in the run's directory of ends, each made under another name and renamed, so that it
is there whole or not at all:

``<key>.<n>.start``  ``<time> <host> <pid>``
``<key>.<n>.end``    ``<exit code> <time> [what went wrong, in words]``; 128 + n is death by signal n, as shells have it;
                     higher than 192 is no signal; the words "time limit" tell that it was stopped at its own

``n`` counts from 0 and grows when the scheduler runs the script again (requeue); members that had come to an end of
their own are then left alone. A file ``<key>`` in the directory of stops ends a member, or keeps it from starting; one
with the job's mark keeps the whole script from starting: that is how a submit whose answer was lost is called off.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from ._arrays import array, joined
from ._text import command_words

Environment = tuple[tuple[str, str | None], ...]
Pack = Literal["job", "array", "separate"]
PACKS: tuple[Pack, ...] = ("job", "array", "separate")


class Member(NamedTuple):
    """One command of a batch script.

    :ivar key: the name that its files have.
    :ivar env: variables to set; None: to unset.
    :ivar stdout: file for its output; "": the command opens its files itself.
    :ivar stderr: file for its errors.
    :ivar limit: seconds that it may run; None: as long as its job.
    """

    key: int
    cwd: str
    argv: tuple[str, ...]
    env: Environment = ()
    stdout: str = ""
    stderr: str = ""
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a script tells of its members, and is told to stop them.

    :ivar ends: directory for what members tell.
    :ivar stops: directory that is looked at for what is to end.
    :ivar mark: this job's own word.
    :ivar grace: seconds between SIGTERM and SIGKILL of one member.
    :ivar index: shell expression for the number of this task; "": not an array.
    :ivar forwards: pass signals on to the members; where the scheduler signals every process itself they are not.
    """

    ends: str
    stops: str
    mark: str
    grace: float = 5.0
    index: str = ""
    forwards: bool = False


TELL = """\
asim_tell() { printf '%s\\n' "$2" > "$asim_ends/.$1" && mv -f "$asim_ends/.$1" "$asim_ends/$1"; }
asim_end() { asim_tell "$asim_key.$asim_n.end" "$1 $(date +%s.%N) $2"; }
asim_refuse() { printf '%s: %s\\n' "$asim_key" "$2" >&2; asim_end "$1" "$2"; }
asim_keep() {
  [ ! -s "$1" ] || [ ! -f "$1" ] || {
    asim_i=1
    while [ -e "$1.$asim_i" ]; do asim_i=$((asim_i + 1)); done
    mv "$1" "$1.$asim_i"
  }
  true > "$1"
}
asim_wait() {
  asim_code= asim_gone=
  while :; do
    asim_last=$asim_code asim_hit=
    wait "$1"
    asim_code=$?
    [ "$asim_code$asim_gone" != 127gone ] || asim_code=$asim_last
    [ "$asim_code" -lt 0 ] || [ "$asim_code" -gt 128 ] || break
    kill -0 "$1" 2>/dev/null || { asim_gone=gone; [ "$asim_limit" = 0 ] || kill "$asim_timer" 2>/dev/null; }
    [ -z "$asim_gone" ] || [ -n "$asim_hit" ] || [ "$asim_code" != "$asim_last" ] || break
  done
  [ "$asim_code" -ge 0 ] || asim_code=143  # bash lost it: -1, then 127; that happens when signals come, so it was one
  return "$asim_code"
}
asim_on() {
  for asim_i in TERM USR1 USR2; do trap "asim_hit=1 asim_signal=$asim_i; $1" "$asim_i"; done
}
asim_processes() {
  ps -A -o pid= -o ppid= -o lstart= 2>/dev/null | awk -v top="$1" '
    { pid = $1; parent[pid] = $2; $1 = $2 = ""; sub(/^ +/, ""); born[pid] = $0 }
    END { for (one in parent) { for (up = one; top && up in parent && up != top && depth[one]++ < 99; ) up = parent[up]
      if (!top || up == top) print one, born[one] } }'
}
asim_stop() {
  asim_all=$(asim_processes "$1")
  kill -TERM "$1" $(printf '%s\\n' "$asim_all" | cut -d ' ' -f 1) 2>/dev/null
  sleep "$asim_grace"
  asim_now=$(asim_processes "")
  [ -n "$asim_all" ] || kill -KILL "$1" 2>/dev/null
  printf '%s\\n' "$asim_all" | while read -r asim_pid asim_born; do
    case "
$asim_now
" in *"
$asim_pid $asim_born
"*) kill -KILL "$asim_pid" ;; esac
  done
}
asim_lost() {
  ps -A -o pid= -o ppid= -o pgid= 2>/dev/null | awk -v top="$$" '
    { parent[$1] = $2; if ($3 == top) ours[$1] }
    END { for (one in ours) { for (up = one; up in parent && up != top && depth[one]++ < 99; ) up = parent[up]
      if (up != top) print one } }'
}
asim_guard() {
  asim_child=$1
  asim_on "$asim_note; $asim_forward"
  case $asim_got in *TERM*) asim_stop "$1" & ;; ?*) eval "$asim_forward" ;; esac
  asim_wait "$1"
  trap '' TERM USR1 USR2
  [ "$asim_code" -le 128 ] || [ "$asim_code" -gt 192 ] || asim_got=TERM
  case $asim_got in *TERM*)
    for asim_i in 1 2 3; do
      asim_all=$(asim_lost)
      [ -n "$asim_all" ] || break
      kill -KILL $asim_all 2>/dev/null
    done ;;
  esac
  exit "$asim_code"
}
asim_timer() {
  trap '[ "$!" = "$asim_child" ] || kill -KILL "$!"; exit' TERM
  sleep "$asim_limit" &
  wait "$!"
  true > "$asim_ends/.$asim_key.$asim_n.late"
  trap '' TERM
  asim_stop "$asim_child"
}
asim_member() {
  asim_key=$1 asim_cwd=$2 asim_out=$3 asim_err=$4 asim_limit=$5 asim_n=0 asim_words=
  shift 5
  while [ -e "$asim_ends/$asim_key.$asim_n.start" ]; do
    if read -r asim_code asim_rest 2>/dev/null < "$asim_ends/$asim_key.$asim_n.end"; then
      [ "$asim_code" -gt 128 ] && [ "$asim_code" -le 192 ] && [ "${asim_rest#* }" != "time limit" ] || return "$asim_code"
    fi
    asim_n=$((asim_n + 1))
  done
  [ ! -e "$asim_stops/$asim_key" ] || { asim_end 143 "stopped before it started"; return 143; }
  cd -- "$asim_cwd" || { asim_refuse 126 "cannot enter its directory $asim_cwd"; return 126; }
  for asim_file in "$asim_out" "$asim_err"; do
    [ -z "$asim_file" ] || asim_keep "$asim_file" || { asim_refuse 126 "cannot write $asim_file"; return 126; }
  done
  asim_rest="$(date +%s.%N) $(uname -n)"
  if [ -z "$asim_out" ]; then exec "$@" &
  elif [ "$asim_out" = "$asim_err" ]; then exec "$@" >> "$asim_out" 2>&1 &
  else exec "$@" >> "$asim_out" 2>> "$asim_err" &
  fi
  asim_child=$!
  [ "$asim_limit" = 0 ] || { asim_timer & asim_timer=$!; }
  asim_on "$asim_forward"
  asim_tell "$asim_key.$asim_n.start" "$asim_rest $asim_child"
  asim_wait "$asim_child"
  trap '' TERM USR1 USR2
  [ "$asim_limit" = 0 ] || kill "$asim_timer" 2>/dev/null
  [ ! -e "$asim_ends/.$asim_key.$asim_n.late" ] || asim_words="time limit"
  asim_end "$asim_code" "$asim_words"
  return "$asim_code"
}
"""
"""The functions of every script. (What is killed after the grace is told from others that got its number by when it was
born. The timer is forked before traps are set: dash loses signals that come before a new process has let go of the
traps that it was born with, and what is lost here would run on; SIGKILL is never lost. A ``wait`` that a signal cut
short looks like a death by that signal, and bash may say so late, after the trap has run: so such a code is believed
only of a process that is gone, and when it was heard twice. Bash forgets a child that ends as the signal comes, and
then waits until there is no other: so no timer may outlive its member, and no watch the last one. No trap may run
where ``$(`` is read: bash 5.2 gives up.

The script itself, ``asim_guard``, is a process above all that. A scheduler that signals what it found in a look at the
processes misses one that is born just then, and loses sight of it when its parent dies. So when the script was told to
end, or what it guards was killed, it kills what is left of its process group and has no parent among us any more.)"""

STOP = """\
asim_watch() {
  while sleep 2; do
    for asim_pid in $asim_pids; do kill -0 "$asim_pid" 2>/dev/null && break; done || return
    for asim_file in "$asim_stops"/*; do
      asim_key=${asim_file##*/} asim_n=0
      case "$asim_keys" in *" $asim_key "*) ;; *) continue ;; esac
      while [ -e "$asim_ends/$asim_key.$((asim_n + 1)).start" ]; do asim_n=$((asim_n + 1)); done
      read -r asim_i asim_i asim_child 2>/dev/null < "$asim_ends/$asim_key.$asim_n.start" || continue
      asim_keys="${asim_keys%%" $asim_key "*} ${asim_keys#*" $asim_key "}"
      [ ! -e "$asim_ends/$asim_key.$asim_n.end" ] || continue
      asim_stop "$asim_child" &
    done
  done
}
"""
"""What scripts of several members have besides."""


def body(members: Sequence[Member], places: Places) -> str:
    """Everything after the preamble."""
    shared = _shared(members)
    lines = [*_environment(shared), "set +efuC", *_settings(places), TELL.rstrip("\n")]
    lines.append('[ ! -e "$asim_stops/$asim_mark" ] || { echo "called off" >&2; exit 143; }')
    rows = _rows(members, {name for name, _ in shared})
    lines += ["asim_limit=0 asim_got= asim_note='asim_got=$asim_got$asim_signal'", 'asim_on "$asim_note"', "("]
    if places.index:
        lines += array(rows, places.index)
    elif len(rows) == 1:
        lines.append(f"asim_member {joined(rows[0])}")
    else:
        lines += _together(rows)
    return "\n".join([*lines, ") &", 'asim_guard "$!"', ""])


def _settings(places: Places) -> list[str]:
    """What the functions refer to. ``set`` undoes what a preamble may have set, as they do without."""
    forward = 'kill -s "$asim_signal" "$asim_child" 2>/dev/null' if places.forwards else ":"
    return [
        f"asim_ends={shlex.quote(places.ends)}",
        f"asim_stops={shlex.quote(places.stops)}",
        f"asim_mark={shlex.quote(places.mark)} asim_grace={_decimal(places.grace)} asim_forward={shlex.quote(forward)}",
    ]


def _together(rows: Sequence[Sequence[str]]) -> list[str]:
    """All members at the same time; the script's exit code is 0 only if that of each is, else a failed member's."""
    starts = [f'asim_member {joined(row)} & asim_pids="$asim_pids $!"' for row in rows]
    keys = "  ".join(row[0] for row in rows)
    return [
        "asim_pids=",
        *starts,
        STOP.rstrip("\n"),
        f'asim_keys=" {keys} "',
        "asim_watch & asim_watcher=$!",
        """asim_on 'for asim_child in $asim_pids; do '"$asim_forward"'; done'""",
        "asim_status=0",
        'for asim_pid in $asim_pids; do asim_wait "$asim_pid" || asim_status=$asim_code; done',
        'kill "$asim_watcher"',
        'exit "$asim_status"',
    ]


def _rows(members: Sequence[Member], shared: Collection[str]) -> list[tuple[str, ...]]:
    """What ``asim_member`` is called with for each: where it runs, its command, and the variables that are its own."""
    commands, rows = dict[tuple[object, object], list[str]](), []
    for member in members:
        what = (member.argv, member.env)  # most members have the same
        if what not in commands:
            own = {name: value for name, value in member.env if name not in shared}
            commands[what] = command_words(member.argv, own)
        places = (str(member.key), member.cwd, member.stdout, member.stderr, _decimal(member.limit or 0))
        rows.append((*places, *commands[what]))
    return rows


@lru_cache
def _decimal(seconds: float) -> str:
    """As ``sleep`` has it everywhere: no exponent."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


OURS = ("ASIM_", "SSDB", "SSKEY", "SR_")
"""Variables that may be set for a whole script; others (PATH, say) could change what its own commands do."""
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def _shared(members: Sequence[Member]) -> list[tuple[str, str | None]]:
    """Those of our variables that all members have with the same value, if the shell can set them (``SSDB_a-b`` not)."""
    if not members:
        return []
    first = {name: value for name, value in members[0].env if name.startswith(OURS) and _NAME.fullmatch(name)}
    common = set(first.items()).intersection(*{member.env for member in members})
    return [item for item in first.items() if item in common]


def _environment(shared: Iterable[tuple[str, str | None]]) -> list[str]:
    """Sets what the members share, once."""
    return [f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}" for name, value in shared]
