"""The system calls that a program may make, as a filter for seccomp(2): what is not listed fails.

Listed is what Python, its standard library and NumPy need beside the program's own limits; not what reaches another
process, the network, a new program or process, a namespace, a device, or memory that no limit counts (vmsplice, memfd,
shared memory, message queues, io_uring, keys). Standard library only; knows no sandbox.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby

_CALLS = """
read 0 63, write 1 64, open 2 -, openat 257 56, creat 85 -, close 3 57, close_range 436 436, lseek 8 62,
pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, preadv 295 69, pwritev 296 70, preadv2 327 286,
pwritev2 328 287, sendfile 40 71, copy_file_range 326 285, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79,
statx 332 291, statfs 137 43, fstatfs 138 44, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -,
readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -,
renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -, link 86 -, linkat 265 37, unlink 87 -,
unlinkat 263 35, symlink 88 -, symlinkat 266 36, mknod 133 -, mknodat 259 33, chmod 90 -, fchmod 91 52,
fchmodat 268 53, umask 95 166, utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88, truncate 76 45,
ftruncate 77 46, fallocate 285 47, fadvise64 221 223, fsync 74 82, fdatasync 75 83, flock 73 32, getxattr 191 8,
lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13, dup 32 23, dup2 33 -,
dup3 292 24,

pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd 284 -, eventfd2 290 19,
timerfd_create 283 85, timerfd_settime 286 86, timerfd_gettime 287 87, recvfrom 45 207, recvmsg 47 212,
shutdown 48 210, getsockname 51 204, getpeername 52 205, getsockopt 55 209, setsockopt 54 208,

mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, msync 26 227, madvise 28 233, brk 12 214,
membarrier 324 283,

exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95, set_tid_address 218 96, set_robust_list 273 99,
get_robust_list 274 100, rseq 334 293, arch_prctl 158 -, futex 202 98, sched_yield 24 124, sched_getaffinity 204 123,
sched_getparam 143 121, sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126,
sched_rr_get_interval 148 127, getpriority 140 141, getpid 39 172, getppid 110 173, gettid 186 178, getpgrp 111 -,
getpgid 121 155, getsid 124 156, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148,
getresgid 120 150, getgroups 115 158, capget 125 90, getrlimit 97 163, setrlimit 160 164, getrusage 98 165,
times 100 153, sysinfo 99 179, uname 63 160, getcpu 309 168, getrandom 318 278,

time 201 -, gettimeofday 96 169, clock_gettime 228 113, clock_getres 229 114, nanosleep 35 101,
clock_nanosleep 230 115, alarm 37 -, getitimer 36 102, setitimer 38 103, timer_create 222 107, timer_settime 223 110,
timer_gettime 224 108, timer_getoverrun 225 109, timer_delete 226 111, pause 34 -, rt_sigaction 13 134,
rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133,
sigaltstack 131 132, restart_syscall 219 128
"""
"""Name, number on x86_64, number on aarch64; in groups: files; pipes, waiting for them, and the pair of sockets that
asyncio needs; memory that RLIMIT_AS counts; the process itself and its threads; time and signals."""
_SIGNALS = "kill 62 129, tkill 200 130, tgkill 234 131"
"""For a program that sees no other process."""
_CHECKED = "ioctl 16 29, fcntl 72 25, prctl 157 167, prlimit64 302 261, socketpair 53 199, sendto 44 206"
"""Calls that one argument decides, see `_ARGUMENTS`."""
_LOW, _HIGH = 16, 20
"""Where the first argument's halves are in `struct seccomp_data`; those of the next ones follow every eight bytes."""
_ARGUMENTS: Mapping[str, Sequence[tuple[int, Sequence[int]]]] = {
    "ioctl": ((_LOW + 8, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),),  # is it a terminal, its size; FIO*
    "fcntl": ((_LOW + 8, (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)),),  # copies, flags, locks: no F_SETOWN
    "prctl": ((_LOW, (15, 16)),),  # the thread's name
    "prlimit64": ((_LOW, (0,)),),  # its own
    "socketpair": ((_LOW + 8, (1, 0x801, 0x80001, 0x80801)),),  # streams: a datagram socket can be sent elsewhere
    "sendto": ((_LOW + 32, (0,)), (_HIGH + 32, (0,))),  # no address
}
_CLONE: Mapping[str, int] = {"x86_64": 56, "aarch64": 220}
"""May make threads only."""
_CLONE3 = 435
"""Its flags can't be read by a filter: libc falls back to clone."""
_NEWEST = 450
"""Later calls are unknown, so that libc falls back to earlier ones."""
_CLONE_THREAD = 0x10000
_AUDIT_ARCH: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = tuple(_AUDIT_ARCH)
"""Those whose calls are known here."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _END = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38


@cache
def filter_program(machine: str, alone: bool) -> bytes:
    """The filter, in classic BPF; refused calls fail with EPERM.

    Args:
        machine: one of MACHINES.
        alone: the program sees no other process, so that signals are harmless.
    """
    steps = [_step(_LOAD, 4), _step(_EQUAL, _AUDIT_ARCH[machine], 1, 0), _step(_END, _KILL), _step(_LOAD, 0)]
    steps += [_step(_AT_LEAST, 0x40000000, 0, 1), _step(_END, _KILL)]  # x86's second numbering of the same calls
    for name, number in _numbers(_CHECKED, machine):
        checks = [step for where, values in _ARGUMENTS[name] for step in _one_of(where, values)]
        steps += [_step(_EQUAL, number, 0, len(checks) + 1), *checks, _step(_END, _ALLOW)]
    steps += [_step(_EQUAL, _CLONE[machine], 0, 4), _step(_LOAD, _LOW), _step(_ANY_BIT, _CLONE_THREAD, 0, 1)]
    steps += [_step(_END, _ALLOW), _step(_END, _REFUSE), _step(_EQUAL, _CLONE3, 0, 1), _step(_END, _UNKNOWN)]
    calls = _CALLS + (f", {_SIGNALS}" if alone else "")
    for first, last in _ranges({number for _, number in _numbers(calls, machine)}):
        steps += [_step(_AT_LEAST, last + 1, 3, 0), _step(_AT_LEAST, first, 0, 1), _step(_END, _ALLOW)]
        steps += [_step(_END, _REFUSE)]
    return b"".join([*steps, _step(_AT_LEAST, _NEWEST + 1, 0, 1), _step(_END, _UNKNOWN), _step(_END, _REFUSE)])


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _one_of(where: int, values: Sequence[int]) -> list[bytes]:
    """Go on if a half of an argument is one of the values, or refuse."""
    tests = [_step(_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [_step(_LOAD, where), *tests, _step(_END, _REFUSE)]


def _numbers(calls: str, machine: str) -> Iterator[tuple[str, int]]:
    for call in calls.replace("\n", " ").split(","):
        name, *numbers = call.split()
        number = numbers[MACHINES.index(machine)]
        if number != "-":
            yield name, int(number)


def _ranges(numbers: set[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of numbers, ascending."""
    for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
        (_, first), *rest = run
        yield first, rest[-1][1] if rest else first
