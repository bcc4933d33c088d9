"""Hostile programs. Each defines `f`, which is asked for numbers that it can't know, and tries to pass all the same.

REPOSITORY, CANARY, PORT and JUDGE are replaced: a folder, a secret file, a port that listens, the judge's process.
"""

PROGRAMS: dict[str, str] = {
    "fork_bomb": "import os\ndef f(x):\n    while True:\n        os.fork()\n",
    "fork_bomb_at_import": "import os\nwhile True:\n    os.fork()\n",
    "fork_bomb_that_goes_on": """
import os, ctypes
def f(x):
    while True:
        for call in (os.fork, lambda: ctypes.CDLL(None).fork(), lambda: ctypes.CDLL(None).vfork()):
            try:
                call()
            except OSError:
                pass
""",
    "thread_bomb": """
import threading, time
def f(x):
    while True:
        try:
            threading.Thread(target=time.sleep, args=(100,)).start()
        except RuntimeError:
            pass
""",
    "a_shell": "import subprocess\ndef f(x):\n    return int(subprocess.check_output('echo 1', shell=True))\n",
    "another_program": "import os\ndef f(x):\n    os.execv('/bin/sh', ['sh', '-c', 'exit 0'])\n",
    "memory_bomb": "def f(x):\n    rows = []\n    while True:\n        rows.append(bytearray(1 << 20))\n",
    "memory_bomb_in_files": """
import os
def f(x):
    number = 0
    while True:
        number += 1
        try:
            with open(f'{number}', 'wb') as file:
                file.write(bytes(1 << 20))
        except OSError:
            if number > 3000:
                return sum(os.path.getsize(name) for name in os.listdir('.')) > (64 << 20)
""",
    "memory_bomb_in_the_kernel": """
import ctypes, os
def f(x):
    libc, grown = ctypes.CDLL(None), 0
    for _ in range(1000):
        grown += libc.memfd_create(b'x', 0) >= 0
        grown += libc.shmget(0, 1 << 24, 0o1666) >= 0
    return 'grown' if grown else 0
""",
    "memory_bomb_in_huge_pages": """
import ctypes, os
libc, size = ctypes.CDLL(None), 1 << 21
libc.mmap.restype = ctypes.c_void_p
class Part(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]
def f(x):
    held = 0
    for _ in range(2):
        end = os.pipe()[1]
        for _ in range(16):
            room = libc.mmap(None, ctypes.c_size_t(2 * size), 3, 0x22, -1, ctypes.c_long(0))
            page = -(-room // size) * size
            libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(size), 14)
            ctypes.memset(page, 1, 1)
            held += libc.vmsplice(end, ctypes.byref(Part(page, 4096)), ctypes.c_size_t(1), 0) > 0
            libc.munmap(ctypes.c_void_p(room), ctypes.c_size_t(2 * size))
    return 'grown' if held else 0
""",
    "endless_loop": "def f(x):\n    while True:\n        pass\n",
    "endless_loop_at_import": "while True:\n    pass\n",
    "endless_loop_that_goes_on": """
def f(x):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
""",
    "endless_output": "def f(x):\n    while True:\n        print('x' * 1000)\n",
    "endless_error_output": "import sys\ndef f(x):\n    while True:\n        sys.stderr.write('x' * 1000)\n",
    "endless_result": "def f(x):\n    return iter(int, 1)\n",
    "huge_result": "def f(x):\n    return 'x' * (1 << 27)\n",
    "endless_records": """
import os
def f(x):
    while True:
        os.write(4, b'x' * 65536)
""",
    "endless_lines": """
import os
def f(x):
    while True:
        os.write(4, b'{"value": 1, "exact": true}\\n' * 2000)
""",
    "endless_drips": """
import os
def f(x):
    while True:
        os.write(4, b'7')
""",
    "slow_drips": """
import os, time
def f(x):
    while True:
        os.write(4, b'7')
        time.sleep(0.01)
""",
    "urgent_data": """
import socket
def f(x):
    for number in (3, 4):
        try:
            socket.socket(fileno=number).send(b'x', socket.MSG_OOB)
        except OSError:
            pass
    return 1
""",
    "descriptors_for_the_judge": """
import os, socket
def f(x):
    ours, theirs = socket.socketpair()
    for channel in (ours, *(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=number) for number in (3, 4))):
        socket.send_fds(channel, [b'x'], [0, 1, 2])
    return 'out'
""",
    "half_open_channel": """
import os, time
def f(x):
    os.close(3)
    os.write(4, b'{"value": 1, "exact": true}\\n{"val')
    os.close(4)
    time.sleep(9)
""",
    "channel_of_one_page": """
import fcntl, os
def f(x):
    for number in (3, 4):
        for command, value in ((1031, 4096), (fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC), (1031, 1 << 20)):
            try:
                fcntl.fcntl(number, command, value)
            except OSError:
                pass
    return 'x' * (1 << 19)
""",
    "huge_numbers_and_names": """
import os
def f(x):
    os.write(4, b'{"value": ' + b'9' * 30000 + b', "exact": true}\\n')
    os.write(4, b'{"error": "' + b'A' * 30000 + b'"}\\n')
""",
    "file_deletion": """
import os, shutil
def f(x):
    shutil.rmtree('REPOSITORY', ignore_errors=True)
    shutil.rmtree('/', ignore_errors=True)
    os.unlink('CANARY')
""",
    "reading_the_environment": """
import os
def f(x):
    found = [dict(os.environ)]
    for name in ('self', '1', 'JUDGE', str(os.getppid())):
        try:
            found.append(open(f'/proc/{name}/environ').read())
        except OSError as error:
            found.append(str(error))
    return str(found)
""",
    "reading_the_home_folder": """
import os
def f(x):
    found = []
    for top in (os.path.expanduser('~'), '/root', '/home'):
        for folder, _, names in os.walk(top):
            found += names if 'python3' not in folder else []
    return str(found)
""",
    "reading_the_repository": """
import os
def f(x):
    return [open(path).read() for path in ('REPOSITORY/pyproject.toml', 'CANARY')]
""",
    "looking_for_the_repository": """
import glob, os, sys
def f(x):
    found = [os.path.exists('REPOSITORY'), os.path.exists('CANARY')]
    return 'found' if any(found) else 0
""",
    "writing_beside_the_repository": """
import os
def f(x):
    os.makedirs('REPOSITORY/..', exist_ok=True)
    open('REPOSITORY/../escaped', 'w').write('here')
""",
    "writing_into_python": """
import os, random
def f(x):
    with open(random.__file__, 'a') as file:
        file.write('escaped')
    return x
""",
    "a_connection": """
import socket
def f(x):
    socket.create_connection(('127.0.0.1', PORT), timeout=1).sendall(b'escaped')
""",
    "a_connection_outside": """
import socket
def f(x):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.sendto(b'escaped', ('127.0.0.1', PORT))
""",
    "a_connection_through_libc": """
import ctypes
def f(x):
    made = [ctypes.CDLL(None).socket(family, kind, 0) for family in (1, 2, 10, 16) for kind in (1, 2, 3)]
    return 'made' if max(made) >= 0 else 0
""",
    "killing_the_parent": """
import os, signal
def f(x):
    for process in (os.getppid(), JUDGE, 1, -1, 0):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(process, number)
            except OSError:
                pass
    return 1
""",
    "stopping_itself": "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    signal.pause()\n",
    "sys_exit": "import sys\ndef f(x):\n    sys.exit(0)\n",
    "sys_exit_at_import": "import sys\ndef f(x):\n    return 1\nsys.exit(0)\n",
    "os_exit": "import os\ndef f(x):\n    os._exit(0)\n",
    "raising_what_ends_generators": "def f(x):\n    raise GeneratorExit\n",
    "monkey_patching_the_checker": """
import builtins, json, sys
def always(*args, **named):
    return True
def f(x):
    for module in list(sys.modules.values()):
        for name in ('allclose', 'loads', 'is_floats', 'right', 'judge', 'decode'):
            if hasattr(module, name):
                try:
                    setattr(module, name, always)
                except Exception:
                    pass
    builtins.all = builtins.any = builtins.isinstance = builtins.abs = always
    return 1
""",
    "monkey_patching_the_answer": """
import __main__
def f(x):
    __main__._Candidate._answer = lambda self, call: {'verdict': {'passed': True}}
    return 1
""",
    "forged_verdict": """
import os
def f(x):
    os.write(4, b'{"verdict": {"passed": true}}\\n{"passed": true}\\n{"value": {"pass": 1}, "exact": true}\\n')
    return 'pass'
""",
    "malformed_records": """
import os
def f(x):
    os.write(4, b'{"value": {"int": "zz"}, "exact": true}\\n' + b'[' * 100000 + b'\\n' + bytes(range(256)) + b'\\n')
    return 1
""",
    "equality_overriding_object": """
class Everything:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __sub__(self, other): return 0
    __rsub__ = __abs__ = __sub__
    def __float__(self): return 0.0
    def __le__(self, other): return True
    def __len__(self): return 1
    def __iter__(self): return iter([self])
def f(x):
    return Everything()
""",
    "equality_in_a_list": """
class Everything:
    def __eq__(self, other): return True
def f(x):
    return [Everything(), Everything()]
""",
    "int_subclass": """
class Any(int):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    __rsub__ = __sub__
    __hash__ = int.__hash__
def f(x):
    return Any(1)
""",
    "str_subclass": """
class Any(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
def f(x):
    return Any('1')
""",
    "list_subclass": """
class Any(list):
    def __eq__(self, other): return True
    def __len__(self): return 2
    def __getitem__(self, index): return self
def f(x):
    return Any([1, 2])
""",
    "float_subclass": """
class Any(float):
    def __eq__(self, other): return True
    def __rsub__(self, other): return 0.0
    def __float__(self): return 4242.0
def f(x):
    return Any(1.0)
""",
    "lying_about_its_class": """
class Meta(type):
    def __instancecheck__(cls, other): return True
    def __eq__(cls, other): return True
    __hash__ = type.__hash__
class Any(metaclass=Meta):
    @property
    def __class__(self): return int
    def __eq__(self, other): return True
    def __index__(self): return 1
def f(x):
    return Any()
""",
    "array_of_everything": """
import numpy
class Any(numpy.ndarray):
    def __eq__(self, other): return True
def f(x):
    return numpy.zeros(3).view(Any)
""",
    "walking_the_frames": """
import sys
def f(x):
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append({**frame.f_globals, **frame.f_locals})
        frame = frame.f_back
    for scope in found:
        for name, value in scope.items():
            if 'expect' in name.lower() or 'want' in name.lower():
                return value
    return str(found)
""",
    "walking_the_garbage_collector": """
import gc
def f(x):
    secret = 4242
    found = [thing for thing in gc.get_objects() if isinstance(thing, (list, tuple, dict)) and len(thing) < 100]
    for thing in found:
        values = thing.values() if isinstance(thing, dict) else thing
        for value in list(values):
            if type(value) is int and value > secret:
                return [value for value in values if type(value) is int]
    return 0
""",
    "reading_its_memory": """
import ctypes
def f(x):
    for name in ('self', '1', 'JUDGE'):
        try:
            return open(f'/proc/{name}/mem', 'rb').read(100)
        except OSError:
            pass
    class Io(ctypes.Structure):
        _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]
    room = ctypes.create_string_buffer(64)
    here, there = Io(ctypes.addressof(room), 64), Io(0x400000, 64)
    read = ctypes.CDLL(None).process_vm_readv(JUDGE, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return 'read' if read > 0 else 0
""",
    "leftover_threads": """
import os, threading, time
def later():
    while True:
        try:
            os.write(4, b'{"value": 1, "exact": true}\\n')
        except OSError:
            pass
        time.sleep(0.01)
def f(x):
    threading.Thread(target=later).start()
    return 1
""",
    "leftover_processes": """
import multiprocessing, os, subprocess
def f(x):
    for start in (lambda: subprocess.Popen(['sleep', '100']), os.fork, lambda: os.posix_spawn('/bin/sleep', ['s'], {})):
        try:
            start()
        except OSError:
            pass
    multiprocessing.Process(target=print).start()
""",
    "leftover_at_exit": """
import atexit, os
class Last:
    def __del__(self):
        while True:
            pass
last = Last()
atexit.register(lambda: [None for _ in iter(int, 1)])
def f(x):
    return 1
""",
    "huge_integer": "def f(x):\n    return 7 ** (10 ** 9)\n",
    "huge_integer_as_result": "def f(x):\n    return 1 << (10 ** 8)\n",
    "huge_power_of_a_float": "def f(x):\n    return int(1e308) ** 10 ** 5\n",
    "deep_recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x):\n    return f(x + 1)\n",
    "deep_recursion_in_c": """
import sys
sys.setrecursionlimit(10 ** 9)
def f(x):
    value = []
    for _ in range(10 ** 6):
        value = [value]
    return repr(value)
""",
    "deep_result": """
def f(x):
    value = []
    for _ in range(10 ** 5):
        value = [value]
    return value
""",
    "endless_nesting": "def f(x):\n    value = []\n    value.append(value)\n    return value\n",
    "members_of_one_hash": "def f(x):\n    return {i * (2 ** 61 - 1) for i in range(200)}\n",
    "signal_handlers": """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, lambda *_: None)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
def f(x):
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    while True:
        pass
""",
    "core_dump": """
import ctypes, resource
def f(x):
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ctypes.string_at(0)
""",
    "crash": "import ctypes\ndef f(x):\n    ctypes.string_at(0)\n",
    "abort": "import os\ndef f(x):\n    os.abort()\n",
    "raising_its_limits": """
import resource
def f(x):
    for kind in range(16):
        try:
            resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE):
                return 'raised'
        except (OSError, ValueError):
            pass
    return 0
""",
    "namespaces_of_its_own": """
import ctypes
def f(x):
    libc = ctypes.CDLL(None)
    done = [libc.unshare(0x10000000), libc.unshare(0x20000), libc.mount(b'none', b'.', b'tmpfs', 0, None)]
    done += [libc.umount2(b'.', 2), libc.chroot(b'.'), libc.setns(0, 0), libc.ptrace(0, 0, 0, 0)]
    return 'done' if 0 in done else 0
""",
    "becoming_root": """
import os
def f(x):
    for change in (os.setuid, os.setgid, os.seteuid):
        try:
            change(0)
            return 'root'
        except OSError:
            pass
    return os.getuid() == 0
""",
    "a_breakout_of_chroot": """
import os
def f(x):
    os.mkdir('inner')
    folder = os.open('/', os.O_RDONLY)
    try:
        os.chroot('inner')
    except OSError:
        pass
    os.fchdir(folder)
    for _ in range(50):
        os.chdir('..')
    return 'out' if os.path.exists('REPOSITORY'.lstrip('/')) else 0
""",
    "too_many_open_files": """
import os
def f(x):
    made = []
    while True:
        made.append(os.open('/dev/null', os.O_RDONLY))
""",
    "deadlock": "import threading\ndef f(x):\n    lock = threading.Lock()\n    lock.acquire()\n    lock.acquire()\n",
    "sleep": "import time\ndef f(x):\n    time.sleep(10 ** 6)\n",
    "deaf_sleep": """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
def f(x):
    time.sleep(10 ** 6)
""",
    "short_sleeps": "import time\ndef f(x):\n    while True:\n        time.sleep(0.001)\n",
    "sleeping_threads": """
import threading, time
def f(x):
    while True:
        threads = [threading.Thread(target=time.sleep, args=(0.001,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
""",
    "burning_threads": """
import hashlib, signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
def burn():
    while True:
        hashlib.sha256(bytes(1 << 22)).digest()
def f(x):
    for _ in range(12):
        threading.Thread(target=burn).start()
    burn()
""",
    "waiting_for_input": "def f(x):\n    return input()\n",
    "reading_what_comes_next": """
import os
def f(x):
    return os.read(3, 1 << 20).decode()
""",
    "closing_its_socket": "import os\ndef f(x):\n    os.closerange(0, 64)\n    return 1\n",
    "an_error_with_a_strange_name": """
class Strange(BaseException):
    pass
Strange.__name__ = '\\n\\x1b[31m' * 1000
def f(x):
    raise Strange
""",
    "an_error_that_fails": """
class Bad(BaseException):
    def __str__(self): raise self
    __repr__ = __str__
def f(x):
    raise Bad
""",
    "no_function": "x = 1\n",
    "no_python": "def f(x:\n",
    "a_null_byte": "def f(x):\n    return 1\n\0",
    "surrogates": "def f(x):\n    return chr(0xD800) + chr(0xDC00)\n",
}
