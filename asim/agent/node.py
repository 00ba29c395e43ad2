"""One agent of many, in an allocation: it calls its driver. Part of the agent program: standard library only.

Whoever listens may be a stranger, and so may be who calls: each proves to the other that it knows the secret.
node -> driver  32 hex digits, newline          a number used once
driver -> node  HMAC("driver" + that), blank, 32 hex digits of its own, newline
node -> driver  HMAC("node" + these), blank, host name, blank, CPUs, newline; then frames as always
"""

import hashlib
import hmac
import os
import socket

WITHIN = 10.0  # seconds for each address


def proof(secret, who, number):
    return hmac.new(secret, who + number, hashlib.sha256).hexdigest().encode()


def cpus():
    for name in ("SLURM_CPUS_ON_NODE", "NCPUS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def call(addresses, port, path):
    """A socket to the driver, which is at one of these addresses (with commas between them)."""
    with open(path, "rb") as file:
        secret = file.read()
    errors = []
    for address in addresses.split(","):
        try:
            return meet(socket.create_connection((address, int(port)), WITHIN), secret)
        except (OSError, ValueError) as exc:
            errors.append("%s: %s" % (address, exc))
    raise SystemExit("the driver cannot be reached: " + "; ".join(errors))


def meet(sock, secret):
    try:
        mine = os.urandom(16).hex().encode()
        sock.sendall(mine + b"\n")
        line = b""
        while not line.endswith(b"\n") and len(line) < 200:
            piece = sock.recv(1)
            if not piece:
                raise ValueError("it hung up")
            line += piece
        theirs, _, number = line.strip().partition(b" ")
        if not hmac.compare_digest(theirs, proof(secret, b"driver", mine)):
            raise ValueError("it is somebody else")
        about = "%s %d" % (socket.gethostname(), cpus())
        sock.sendall(proof(secret, b"node", number) + b" " + about.encode() + b"\n")
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock
    except BaseException:
        sock.close()
        raise
