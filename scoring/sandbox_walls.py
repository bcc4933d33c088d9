"""The walls around generated code: Linux namespaces, a root of its own, no capabilities, a system-call filter, limits.

Runs inside the sandbox's processes, by `ctypes` and the standard library only. Knows no protocol.
Sources: namespaces(7), mount_setattr(2), pivot_root(2), capabilities(7), seccomp(2), landlock(7); bubblewrap for the
order.
"""

import ctypes
import os
import platform
import resource
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scoring.system_calls import MACHINES, filter_program

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000  # the number is the same on every architecture
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_WRITE, _LANDLOCK_READ, _LANDLOCK_LIST = 1 << 1, 1 << 2, 1 << 3
_LANDLOCK_ALL = (0x1FFF, 0x3FFF, 0x7FFF)
"""What Landlock's versions know of files: reading, writing and making; moving elsewhere; truncating."""
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_SET_THP_DISABLE, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 41, 47, 4
_PR_CAP_AMBIENT_RAISE, _CAP_SYS_ADMIN = 2, 21
_SIGKILL = 9
_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63

SCRATCH = "/scratch"
"""The one folder that a program may write to; its working folder."""
PACKAGES = "/packages"
"""Where a program finds the packages that it may import."""
PYTHON = Path("/python")
"""Where it finds Python, unless that is the system's own."""
CODE = "/sandbox"
"""Where the sandbox's own modules are."""
_PLACE = "/tmp"
"""A folder that every machine has, on which the new root is put together, out of sight."""
HOSTILE_ID = 1000
"""The user and group that a program runs as, inside. Outside it is nobody, or the plain user who started it."""
_NOBODY = 65534
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *(4 * [ctypes.c_ulong]))


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Args:
        wall_s: CPU seconds, and seconds that it may wait of its own accord.
        memory_mib: address space, stack and threads included.
        files_mib: all of what it writes.
        files: how many files.
        open_files: how many at once.
        threads: how many, about.
    """

    wall_s: int
    memory_mib: int
    files_mib: int
    files: int
    open_files: int
    threads: int


def unsupported() -> str | None:
    """Why this machine can't have the system-call filter, or None."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        return f"it runs on {platform.system()} {platform.machine()}, not on Linux x86_64 or aarch64"
    return None


def die_with_parent() -> None:
    """Be killed when the parent process dies; to be said again after a change of user."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def enter_namespaces() -> None:
    """Leave the user, mount, process, network, IPC and host-name namespaces; children are in the new process one.

    Raises:
        OSError: the kernel or its configuration forbids it.
    """
    user, group, ready = os.geteuid(), os.getegid(), os.pipe()
    helper = os.fork() if user == 0 else None  # two users can be mapped by root outside only
    if helper == 0:
        os.close(ready[1])
        os._exit(_map_two_users(os.getppid(), group) if os.read(ready[0], 1) else 1)
    _check(_libc.unshare(_CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
    if helper is None:
        _map_one_user(user, group)
    else:
        os.write(ready[1], b".")
        if os.waitpid(helper, 0)[1] != 0:
            raise OSError("the user namespace's users can't be set")
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS), "unshare")
    os.close(ready[0])
    os.close(ready[1])


def _map_two_users(process: int, group: int) -> int:
    """Root stays root, and programs run as a second user, who is nobody outside; an exit status."""
    try:
        _write(f"/proc/{process}/uid_map", f"0 0 1\n{HOSTILE_ID} {_NOBODY} 1\n")
        _write(f"/proc/{process}/gid_map", f"0 {group} 1\n{HOSTILE_ID} {_NOBODY} 1\n")
    except OSError:
        return 1
    return 0


def _map_one_user(user: int, group: int) -> None:
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{HOSTILE_ID} {user} 1\n")
    _write("/proc/self/gid_map", f"{HOSTILE_ID} {group} 1\n")


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="ascii")


def build_root(shown: Mapping[str, str], masked: Sequence[str]) -> None:
    """Make a new, read-only root that holds some paths of the old one and a few devices, and forget the old one.

    Args:
        shown: place in the new root -> path of a file or folder in the old one, absolute; symbolic links stay links.
            Places tell nothing of where this machine keeps things.
        masked: folders of the new root that are to be empty.

    Raises:
        OSError: a mount is refused.
    """
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", _PLACE, "tmpfs", _MS_NOSUID, "mode=755,size=1m")
    os.chdir(_PLACE)
    Path("old").mkdir()
    _check(_libc.pivot_root(b".", b"old"), "pivot_root")
    root = Path("/new")
    root.mkdir()
    _mount(str(root), str(root), None, _MS_BIND)
    for place, path in (*shown.items(), *zip(_DEVICES, _DEVICES, strict=True)):
        _show(path, _below(root, place))
    for folder in (folder for place in masked if (folder := _below(root, place)).is_dir()):
        _mount("tmpfs", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
        _set_attributes(str(folder), _MOUNT_ATTR_RDONLY)
    _below(root, SCRATCH).mkdir()
    if not _below(root, _PLACE).exists():
        _below(root, _PLACE).symlink_to(SCRATCH)
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")
    _set_attributes("/", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID)


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _show(path: str, target: Path) -> None:
    """Bind a path of the old root, read-only."""
    source = _below(Path("/old"), path)
    if target.exists() or target.is_symlink():
        return  # a folder above it is shown
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()
    _mount(str(source), str(target), None, _MS_BIND | _MS_REC)
    device = 0 if source.is_char_device() else _MOUNT_ATTR_NODEV
    _set_attributes(str(target), _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | device)


def keep_mounting() -> None:
    """Let this process still mount after it has started another program, also if it isn't root in its namespace.

    Raises:
        OSError: the kernel refuses.
    """
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0))
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    _check(_libc.capget(header, sets), "capget")
    sets[2] |= 1 << _CAP_SYS_ADMIN
    _check(_libc.capset(header, sets), "capset")
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_SYS_ADMIN, 0, 0), "prctl(PR_CAP_AMBIENT)")


def enter_scratch(limits: Limits) -> None:
    """Leave for a process namespace and a fresh, bounded scratch folder; children are alone in them.

    Raises:
        OSError: the kernel refuses.
    """
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID), "unshare")
    options = f"mode=777,size={limits.files_mib}m,nr_inodes={limits.files}"
    _mount("tmpfs", SCRATCH, "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    os.chdir(SCRATCH)


def drop_privileges() -> None:
    """Become the hostile user without any capability, for good: no program that is run can win one back.

    Raises:
        OSError: the kernel refuses.
    """
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refuses those that this kernel doesn't have
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(HOSTILE_ID, HOSTILE_ID, HOSTILE_ID)
        os.setresuid(HOSTILE_ID, HOSTILE_ID, HOSTILE_ID)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0))
    sets = ctypes.create_string_buffer(24)
    _check(_libc.capset(header, sets), "capset")
    _check(_libc.capget(header, sets), "capget")
    if any(sets.raw):
        raise OSError("capabilities are left")


def limit_resources(limits: Limits, count_threads: bool) -> None:
    """Bound memory, CPU time, files, threads and core dumps of this process.

    Args:
        count_threads: bound the user's threads, too: only where the user is this program's alone.
    """
    memory, files = limits.memory_mib << 20, limits.files_mib << 20
    bounds = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_STACK: memory,
        resource.RLIMIT_CPU: 2 * limits.wall_s,  # coarse; the trusted side ends it earlier
        resource.RLIMIT_FSIZE: files,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if count_threads:
        bounds[resource.RLIMIT_NPROC] = limits.threads
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        value = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (value, value))


def landlock_version() -> int:
    """Which one the kernel has; 0: none."""
    return max(0, int(_libc.syscall(ctypes.c_long(_SYS_LANDLOCK_CREATE), None, ctypes.c_size_t(0), 1)))


def limit_files(readable: Sequence[str], listed: Sequence[str]) -> None:
    """Let this process write below its working folder only, and read some files only, where the kernel has Landlock.

    Args:
        readable: files and folders that may be read, beside the devices and the working folder.
        listed: folders whose files' names may be seen.

    Raises:
        OSError: the kernel refuses, though it has it.
    """
    if (version := landlock_version()) == 0:
        return
    handled = ctypes.c_uint64(_LANDLOCK_ALL[min(version, len(_LANDLOCK_ALL)) - 1])
    rules = _libc.syscall(ctypes.c_long(_SYS_LANDLOCK_CREATE), ctypes.byref(handled), ctypes.c_size_t(8), 0)
    _check(min(rules, 0), "landlock_create_ruleset")
    _allow(rules, ".", handled.value)
    for path in listed:
        _allow(rules, path, _LANDLOCK_LIST)
    for path in readable:
        _allow(rules, path, _LANDLOCK_READ | _LANDLOCK_LIST)
    for path in _DEVICES:
        _allow(rules, path, _LANDLOCK_READ | _LANDLOCK_WRITE)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    _check(_libc.syscall(ctypes.c_long(_SYS_LANDLOCK_RESTRICT), rules, 0), "landlock_restrict_self")
    os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    """Add to a Landlock ruleset what may be done below a path."""
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not stat.S_ISDIR(os.fstat(opened).st_mode):
        access &= _LANDLOCK_READ | _LANDLOCK_WRITE
    rule = ctypes.create_string_buffer(struct.pack("=Qi", access, opened))
    _check(_libc.syscall(ctypes.c_long(_SYS_LANDLOCK_ADD), rules, 1, rule, 0), f"landlock_add_rule({path})")
    os.close(opened)


def refuse_huge_pages() -> None:
    """No memory in huge pages for this process and its children: a part of one can keep all of it from being freed.

    Raises:
        OSError: the kernel refuses.
    """
    _check(_libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0), "prctl(PR_SET_THP_DISABLE)")


def filter_system_calls(isolated: bool) -> None:
    """Refuse, for good, the system calls that no honest program needs: they fail with EPERM.

    Args:
        isolated: a process namespace hides other processes, so that signals are harmless.

    Raises:
        OSError: the kernel refuses.
    """
    program = filter_program(platform.machine(), isolated)
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(header), 0, 0), "prctl(PR_SET_SECCOMP)")


def _set_attributes(path: str, attributes: int) -> None:
    data = struct.pack("QQQQ", attributes, 0, 0, 0)
    done = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.c_char_p(data),
        ctypes.c_size_t(len(data)),
    )
    _check(done, f"mount_setattr({path})")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    done = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _check(done, f"mount({target})")


def _check(done: int, what: str) -> None:
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
