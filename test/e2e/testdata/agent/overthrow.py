"""Overthrows the agent of this guest, which is its first process, as root."""
import ctypes
import os
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)


def syscall(number, *args):
    result = libc.syscall(number, *[ctypes.c_long(a) for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def port():
    """The agent's own descriptor of the port to the host."""
    agent = syscall(434, 1, 0)  # pidfd_open
    for fd in range(3, 100):
        try:
            mine = syscall(438, agent, fd, 0)  # pidfd_getfd
        except OSError:
            continue
        if "vport" in os.readlink("/proc/self/fd/%d" % mine):
            os.set_blocking(mine, True)
            return mine
    sys.exit("the port is not there")


def frame(call, kind, channel, payload):
    return struct.pack(">IBBH", call, kind, channel, len(payload)) + payload


# Of internal/guest/wire.
KIND_HELLO, KIND_REPLY, KIND_EXIT, MORE, KIND_DATA = 1, 2, 3, 0x80, 32


def write(data):
    p = port()
    print("now", flush=True)
    time.sleep(0.5)
    while data:
        data = data[os.write(p, data):]
    time.sleep(60)


def flood():
    p = port()
    print("now", flush=True)
    time.sleep(0.5)
    data = frame(1, KIND_DATA, 1, b"x" * 30000)  # of a call that is over
    while True:
        os.write(p, data)


def stall():
    print("now", flush=True)
    time.sleep(0.5)
    for thread in os.listdir("/proc/1/task"):
        libc.ptrace(0x4206, ctypes.c_long(int(thread)), None, None)  # PTRACE_SEIZE
        libc.ptrace(0x4207, ctypes.c_long(int(thread)), None, None)  # PTRACE_INTERRUPT
    time.sleep(60)


def change():
    print("now", flush=True)
    time.sleep(0.5)
    with open("/proc/1/maps") as maps, open("/proc/1/mem", "r+b", buffering=0) as mem:
        for line in maps:
            where, mode = line.split()[:2]
            if "x" in mode and "vdso" not in line:
                start, end = (int(n, 16) for n in where.split("-"))
                mem.seek(start)
                mem.write(b"\x00" * (end - start))
    # The agent wakes up to this process's end.


def trigger(letter):
    print("now", flush=True)
    time.sleep(0.5)
    with open("/proc/sysrq-trigger", "w") as f:
        f.write(letter)
    time.sleep(60)


{
    "noise": lambda: write(os.urandom(60000)),
    "a reply to nothing": lambda: write(frame(9999, KIND_REPLY, 0, b"{}")),
    "another greeting": lambda: write(frame(0, KIND_HELLO, 0, b'{"Version":2}')),
    "an endless message": lambda: write(frame(1, KIND_EXIT | MORE, 0, b" " * 60000) * 400),
    "the end of nothing": lambda: write(frame(1, KIND_EXIT, 0, b"{}")),
    "a flood": flood,
    "a stall": stall,
    "a changed agent": change,
    "a crash": lambda: trigger("c"),
    "a restart": lambda: trigger("b"),
}[sys.argv[1]]()
