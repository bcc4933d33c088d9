"""The list of system calls: the kernel's own numbers, and no name that a program has no business with."""

import re
from pathlib import Path

import pytest

from scoring import system_calls

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
LISTED = f"{system_calls._CALLS}, {system_calls._SIGNALS}, {system_calls._CHECKED}"
DANGEROUS = (
    *(
        "execve",
        "fork",
        "vfork",
        "unshare",
        "setns",
        "ptrace",
        "process_vm_readv",
        "pidfd_open",
        "pidfd_getfd",
        "mount",
    ),
    *("chroot", "pivot_root", "bpf", "keyctl", "userfaultfd", "io_uring_setup", "memfd_create", "shmget", "msgget"),
    *("mq_open", "socket", "connect", "bind", "listen", "sendmsg", "sendmmsg", "vmsplice", "splice", "tee", "prctl"),
    *("open_by_handle_at", "setpriority", "sched_setaffinity", "perf_event_open", "landlock_create_ruleset", "fcntl"),
)


@pytest.mark.parametrize("machine", system_calls.MACHINES)
def test_the_numbers_are_the_kernel_s(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed here")
    text = HEADERS[machine].read_text()
    known = {
        name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)
    }  # 3264: those that 32-bit machines call otherwise
    numbers = dict(system_calls._numbers(LISTED, machine))
    renamed = {"newfstatat": "fstatat"} if machine == "aarch64" else {}
    assert numbers == {name: known[renamed.get(name, name)] for name in numbers}
    dangerous = {known[name] for name in DANGEROUS if name in known}
    allowed = set(dict(system_calls._numbers(f"{system_calls._CALLS}, {system_calls._SIGNALS}", machine)).values())
    assert len(dangerous) > 30 and not dangerous & allowed


@pytest.mark.parametrize("machine", system_calls.MACHINES)
def test_every_call_that_arguments_decide_has_its_rule(machine: str) -> None:
    assert {name for name, _ in system_calls._numbers(system_calls._CHECKED, machine)} == set(system_calls._ARGUMENTS)
    assert len(system_calls.filter_program(machine, alone=True)) % 8 == 0
