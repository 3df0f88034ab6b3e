"""A private world for one cluster: user, network, mount and process namespaces of an unprivileged user.

The one thing to know: everything hangs on one process. The first process inside ends when its leash, a
pipe held by the command outside, is let go of, or when `unshare` dies; the kernel then ends every other
process of the namespace and its file systems in memory. Nothing is left, also after `kill -9`.

Why not `ip` and `mount`: a fresh machine need not have iproute2, and both are a few bytes for the kernel.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

PODS = ("10.244.0.0", 16)
UNSHARE = (
    "unshare",
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)
STATE = Path("/run/serin")

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


class NamespacesForbidden(Exception):
    """This machine does not let an ordinary user make namespaces; the message says how to allow it."""


def require() -> None:
    """Refuse early, with the fix, where the kernel or its security module forbids private namespaces."""
    if not shutil.which("unshare"):
        raise NamespacesForbidden("the command `unshare` is missing: install util-linux")
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return
    fixes = {
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "kernel.unprivileged_userns_clone=1"),
        "/proc/sys/user/max_user_namespaces": ("0", "user.max_user_namespaces=10000"),
    }
    for path, (forbidding, setting) in fixes.items():
        if Path(path).exists() and Path(path).read_text().strip() == forbidding:
            hint = f"ask an administrator for: sysctl -w {setting}"
            break
    else:
        hint = "in a container, start it with a seccomp profile that allows unshare and mount"
    reason = tried.stderr.strip() or f"unshare ended with {tried.returncode}"
    raise NamespacesForbidden(f"the local cluster needs unprivileged user namespaces ({reason}): {hint}")


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills this process when the one that started it is gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def set_up_network() -> None:
    """Loopback up, and every pod address local to it."""
    name = struct.pack("16sh14x", b"lo", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, name), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    add_local_route(*PODS)


def add_local_route(network: str, bits: int) -> None:
    """`ip route add local NETWORK/BITS dev lo`, said to the kernel directly."""
    new_route, request, ack, create = 24, 0x1, 0x4, 0x400
    table_local, proto_boot, scope_host, type_local = 255, 3, 254, 2
    route = struct.pack("=BBBBBBBBI", socket.AF_INET, bits, 0, 0, table_local, proto_boot, scope_host, type_local, 0)
    destination = struct.pack("=HH4s", 8, 1, socket.inet_aton(network))
    device = struct.pack("=HHI", 8, 4, socket.if_nametoindex("lo"))
    body = route + destination + device
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.send(struct.pack("=IHHII", 16 + len(body), new_route, request | ack | create, 1, 0) + body)
        (error,) = struct.unpack_from("=i", link.recv(4096), 16)
    if error:
        raise OSError(-error, f"route to {network}/{bits}: {os.strerror(-error)}")


def mount_in_memory() -> None:
    """A file system in memory over /run: the state of one-shot clusters, and where pods look for their token."""
    target = os.path.realpath("/var/run")
    if _libc.mount(b"serin", target.encode(), b"tmpfs", 0, b"mode=755"):
        raise OSError(ctypes.get_errno(), f"tmpfs on {target}: {os.strerror(ctypes.get_errno())}")
    Path("/var/run/secrets/kubernetes.io/serviceaccount").mkdir(parents=True)
    Path("/run").mkdir(exist_ok=True)


def become_init() -> None:
    """Split into the namespace's first process, which only reaps, and its worker, which returns from here.

    When the worker ends, so does the first process, with its status, and the kernel ends all the rest.
    """
    worker = os.fork()
    if worker == 0:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == worker:
            sys.stdout.flush()
            os._exit(max(0, os.waitstatus_to_exitcode(status)) or (1 if status else 0))
