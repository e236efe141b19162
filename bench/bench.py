#!/usr/bin/env python3
"""Measures varve beside other filesystems over one object store, and beside the floor that bare HTTP sets.

    bench/bench.py [--systems a,b,…] [--work small,big,apps] [--latency MS] [--scale 1.0] [--rounds 1] [--out FILE]
    bench/bench.py --show FILE [--ours varve-lost]     the table of a run once more

A system is an executable systems/NAME (its verbs: systems/common.sh). Each piece of work gets a new bucket, a new mount
and a process of its own, so that whoever hangs is killed and the rest goes on. The rules are the same for all:

- "stored" is the time from the first byte until the daemon has ended with everything in the bucket; for whoever stores
  files the bucket is listed and compared after it.
- "cold": unmounted, the system's cache removed, the kernel's caches dropped. Who keeps metadata locally keeps it
  (varve-lost does not). Then all wait three seconds, the floor too: a virtual machine's host takes free memory back
  meanwhile, and whoever came at once would find that warm which the last one left.
- What was read or stored is compared with what was written by SHA-256, outside the time taken.
- An fsync row counts as stored only if the bucket has the bytes when fsync() returns; else it is marked "~" and is no
  measure for others.
- Memory is the daemons' peak resident size within the row.
- Before each turn the disk has everything and the processors are calm, or 20 s have passed.
- With --rounds all take turns, and a row's figure is the median of its rounds. The floor takes part like everybody: it
  finds the server as cold as they do.

Times are wall seconds on this machine in this run: compare columns, never runs. Everything lives in $BUILD/bench and is
removed at the end. Environment: BUILD; VARVE, RCLONE, JUICEFS, GEESEFS, MINIO, TOXIPROXY name binaries.
"""

import argparse
import datetime
import hashlib
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import floor as http_floor  # noqa: E402 (a neighbour, not a package)

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
BUILD = (TOP / (os.environ.get("BUILD") or "build")).resolve()
MIB = 1 << 20
ACCESS = SECRET = "minioadmin"
SYSTEMS = ("ext4", "s3fs", "rclone", "geesefs", "juicefs", "juicefs-wb", "varve", "varve-disk", "varve-lost")
OURS = ("varve", "varve-disk", "varve-lost")
PEERS = ("s3fs", "rclone", "geesefs")  # who stores files as files
KEEP_FILES = PEERS + OURS
# Variants of varve are run only for what they change.
ONLY = {"varve-disk": ("apps",)}
NEEDS = {"s3fs": ("s3fs",), "rclone": ("RCLONE",), "geesefs": ("GEESEFS",), "juicefs": ("JUICEFS", "redis-server"),
         "juicefs-wb": ("JUICEFS", "redis-server")}
WORK_TIMEOUT = 400
MEMORY_REST = 3  # seconds
CALM_TIMEOUT, CALM_SHARE = 20, 0.2
SMALL_SIZE = 8192
BLOCK = 4 * MIB

TITLES = {
    "small.create": "create small files (closed)",
    "small.stored": "... until stored",
    "small.walk.cold": "cold walk with stat",
    "small.walk.warm": "warm walk with stat",
    "small.read.cold": "cold read of all",
    "small.read.warm": "warm read of all",
    "small.rename": "rename the directory",
    "small.rename.stored": "... until stored",
    "small.delete": "delete the tree",
    "small.delete.stored": "... until stored",
    "big.write": "write a large file (closed)",
    "big.stored": "... until stored",
    "big.read.cold": "cold read",
    "big.read.kept": "... the floor with a file that keeps it",
    "big.read.warm": "warm read",
    "big.random.cold": "400 random 4 KiB reads, cold",
    "big.first.cold": "first byte, cold",
    "big.patch": "20 random 4 KiB writes + fsync",
    "big.append": "append 100 KB + fsync",
    "apps.sqlite": "sqlite, 50 transactions",
    "apps.untar": "untar of 4,000 headers (closed)",
    "apps.untar.stored": "... until stored",
    "apps.git": "5 git commits + fsck",
    "latency.read.cold": "cold read of 200 small files",
    "latency.random.cold": "400 random 4 KiB reads, cold",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def drop_kernel_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    time.sleep(MEMORY_REST)


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: {str(got)[:100]} instead of {str(wanted)[:100]}")


# ---- daemons -------------------------------------------------------------------------------------


def with_environment(text):
    """Processes that have this NAME=VALUE in their environment, wherever they daemonized to."""
    found, wanted = set(), text.encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def wait_ended(pids, seconds):
    """Returns at the moment the last of them has ended."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([handle], [], [], max(0, deadline - time.monotonic()))
        finally:
            os.close(handle)
        if not ready:
            raise RuntimeError(f"process {pid} does not end")


class Memory(threading.Thread):
    """Watches the peak resident size of the daemons; the kernel keeps the peak, so looking now and then is enough."""

    def __init__(self):
        super().__init__(daemon=True)
        self.pids, self.peak, self.ended = frozenset(), 0, threading.Event()

    def look(self):
        total = 0
        for pid in self.pids:
            try:
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1])
            except OSError:
                continue
        self.peak = max(self.peak, total)

    def run(self):
        while not self.ended.wait(0.1):
            self.look()

    def begin(self):
        self.peak = 0
        for pid in self.pids:
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            except OSError:
                continue

    def end(self):
        self.look()
        return round(self.peak / 1024, 1)


# ---- one system, mounted ---------------------------------------------------------------------------


class System:
    def __init__(self, name, bench, work, endpoint):
        self.name, self.store = name, bench.store
        self.dir = bench.dir / f"{name}.{work}"
        self.mnt, self.cache = self.dir / "mnt", self.dir / "cache"
        self.mnt.mkdir(parents=True)
        self.cache.mkdir()
        self.bucket = f"bench-{name}-{work}"
        self.memory = Memory()
        self.memory.start()
        self.env = dict(bench.env, MNT=str(self.mnt), CACHE=str(self.cache), BUCKET=self.bucket, ENDPOINT=endpoint,
                        ACCESS=ACCESS, SECRET=SECRET, RC_PORT=str(free_port()))

    def do(self, verb):
        log = self.dir / "log"
        with open(log, "ab") as out:  # a file, not a pipe: daemons keep it open
            status = subprocess.run([str(HERE / "systems" / self.name), verb], env=self.env, stdin=subprocess.DEVNULL,
                                    stdout=out, stderr=out, cwd="/", timeout=WORK_TIMEOUT, check=False).returncode
        if status:
            raise RuntimeError(f"{self.name} {verb}: {status}: {log.read_text(errors='replace')[-500:]}")

    def begin(self):
        self.store.remove_bucket(self.bucket)
        self.store.make_bucket(self.bucket, self.name in OURS)
        self.do("wipe")
        self.mount()

    def mount(self):
        self.do("mount")
        self.memory.pids = frozenset(with_environment(f"MNT={self.mnt}"))

    def umount(self):
        """Until everything is in the bucket."""
        self.do("umount")
        wait_ended(self.memory.pids, WORK_TIMEOUT)
        self.memory.look()
        self.memory.pids = frozenset()

    def forget(self):
        self.umount()
        self.do("reset")
        drop_kernel_caches()

    def cold(self):
        self.forget()
        self.mount()

    def close(self):
        """Also after a failure, when neither daemon nor mount may answer any more."""
        for pid in with_environment(f"MNT={self.mnt}"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        while os.path.ismount(self.mnt) or str(self.mnt) in Path("/proc/self/mountinfo").read_text():
            if subprocess.run(["umount", "-l", str(self.mnt)], stderr=subprocess.DEVNULL, check=False).returncode:
                break
        try:
            self.store.remove_bucket(self.bucket)
        except (RuntimeError, OSError):
            pass

    # ---- what the bucket holds

    def keeps_files(self):
        return self.name in KEEP_FILES

    def check_bucket(self, sizes):
        """sizes: {key: bytes}. Directories may be marked by keys that end in /, varve's own lie below .varve/."""
        if self.keeps_files():
            found = {key: size for key, size in self.store.list(self.bucket).items()
                     if not key.endswith("/") and not key.startswith(".varve/") and (key in sizes or size > 0)}
            missing = [key for key in sizes if found.get(key) != sizes[key]]
            surplus = [key for key in found if key not in sizes]
            if missing or surplus:
                raise AssertionError(f"bucket: {len(missing)} missing {missing[:2]}, "
                                     f"{len(surplus)} surplus {surplus[:2]}")


class Rows:
    """Seconds, memory and marks by row."""

    def __init__(self, system):
        self.system, self.values = system, {}

    def take(self, row, work):
        self.system.memory.begin()
        began = time.monotonic()
        result = work()
        seconds = time.monotonic() - began
        self.values[row] = {"seconds": round(seconds, 4), "rss_mib": self.system.memory.end()}
        return result

    def take_stored(self, row, first):
        """`first` and all until it is stored; mounts again."""
        self.system.memory.begin()
        began = time.monotonic()
        self.system.umount()
        seconds = time.monotonic() - began + self.values[first]["seconds"]
        self.values[row] = {"seconds": round(seconds, 4), "rss_mib": self.system.memory.end()}
        self.system.mount()

    def mark(self, row, stored):
        self.values[row]["stored"] = bool(stored)


# ---- the work --------------------------------------------------------------------------------------


def small_names(count):
    return [f"small/d{n // 100:03}/f{n:05}" for n in range(count)]


def small_body(number):
    return random.Random(number).randbytes(SMALL_SIZE)


def write_whole(path, body):
    with open(path, "wb", buffering=0) as file:
        view = memoryview(body)
        while view:
            view = view[file.write(view):]


def create_small(mnt, bodies):
    (mnt / "small").mkdir()
    for number, (name, body) in enumerate(bodies.items()):
        if number % 100 == 0:
            (mnt / name).parent.mkdir()
        write_whole(mnt / name, body)


def read_small(mnt, bodies):
    """Comparing 8 KiB costs less than a microsecond."""
    for name, body in bodies.items():
        with open(mnt / name, "rb", buffering=0) as file:
            if file.read(SMALL_SIZE + 1) != body:
                raise AssertionError(f"{name}: not what was written")


def walk(top, count):
    seen = 0
    for directory, _, files in os.walk(top):
        for file in files:
            os.stat(os.path.join(directory, file))
            seen += 1
    expect("files seen", seen, count)


def small(system, rows, bench):
    bodies = {name: small_body(n) for n, name in enumerate(small_names(bench.small_count))}
    sizes = {name: SMALL_SIZE for name in bodies}
    mnt, top, renamed = system.mnt, system.mnt / "small", system.mnt / "moved"
    rows.take("small.create", lambda: create_small(mnt, bodies))
    rows.take_stored("small.stored", "small.create")
    system.check_bucket(sizes)
    system.cold()
    rows.take("small.walk.cold", lambda: walk(top, len(bodies)))
    rows.take("small.walk.warm", lambda: walk(top, len(bodies)))
    rows.take("small.read.cold", lambda: read_small(mnt, bodies))
    rows.take("small.read.warm", lambda: read_small(mnt, bodies))
    rows.take("small.rename", lambda: os.rename(top, renamed))
    rows.take_stored("small.rename.stored", "small.rename")
    system.check_bucket({name.replace("small/", "moved/", 1): size for name, size in sizes.items()})
    rows.take("small.delete", lambda: shutil.rmtree(renamed))
    rows.take_stored("small.delete.stored", "small.delete")
    system.check_bucket({})


def big_blocks(count):
    """Blocks that all differ, so that one in another's place is seen."""
    block = bytearray(random.Random(2).randbytes(BLOCK))
    for number in range(count):
        block[:8] = number.to_bytes(8, "little")
        yield block


def write_big(path, count):
    with open(path, "wb", buffering=0) as file:
        for block in big_blocks(count):
            expect("bytes written", file.write(block), BLOCK)


def read_big(path, size):
    buffer, total = bytearray(MIB), 0
    with open(path, "rb", buffering=0) as file:
        while n := file.readinto(buffer):
            total += n
    expect("bytes read", total, size)


def random_offsets(seed, count, size):
    chosen = random.Random(seed)
    return [chosen.randrange(size // 4096) * 4096 for _ in range(count)]


def read_at(path, offsets):
    fd = os.open(path, os.O_RDONLY)
    try:
        return [os.pread(fd, 4096, offset) for offset in offsets]
    finally:
        os.close(fd)


def patch(path, offsets):
    fd = os.open(path, os.O_RDWR)
    try:
        for offset in offsets:
            os.pwrite(fd, b"x" * 4096, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def append(path):
    with open(path, "ab", buffering=0) as file:
        file.write(b"y" * 100000)
        os.fsync(file.fileno())


def patched_digest(count, offsets, tail):
    digest, by_block = hashlib.sha256(), {}
    for offset in offsets:
        by_block.setdefault(offset // BLOCK, []).append(offset % BLOCK)
    for number, block in enumerate(big_blocks(count)):
        copy = bytearray(block)
        for at in by_block.get(number, ()):
            copy[at:at + 4096] = b"x" * 4096
        digest.update(copy)
    digest.update(tail)
    return digest.hexdigest()


def big(system, rows, bench):
    count, path = bench.big_blocks, system.mnt / "big"
    size = count * BLOCK
    rows.take("big.write", lambda: write_big(path, count))
    rows.take_stored("big.stored", "big.write")
    system.check_bucket({"big": size})
    system.cold()
    rows.take("big.read.cold", lambda: read_big(path, size))
    rows.take("big.read.warm", lambda: read_big(path, size))
    expect("SHA-256", digest_of(path), patched_digest(count, (), b""))
    system.cold()
    offsets = random_offsets(3, 400, size)
    got = rows.take("big.random.cold", lambda: read_at(path, offsets))
    expect("random reads", hashlib.sha256(b"".join(got)).hexdigest(), bench.digest_at(offsets))
    system.cold()
    rows.take("big.first.cold", lambda: read_at(path, [0]))
    offsets = random_offsets(5, 20, size)
    rows.take("big.patch", lambda: patch(path, offsets))
    if system.keeps_files():
        rows.mark("big.patch", all(system.store.get(system.bucket, "big", at, 4096) == b"x" * 4096 for at in offsets))
    system.umount()
    system.mount()
    rows.take("big.append", lambda: append(path))
    if system.keeps_files():
        rows.mark("big.append", system.store.list(system.bucket).get("big") == size + 100000)
    system.cold()
    wanted = patched_digest(count, offsets, b"y" * 100000)
    expect("SHA-256 after patch and append", digest_of(path), wanted)
    if system.keeps_files():
        expect("SHA-256 in the bucket", system.store.digest(system.bucket, "big"), wanted)


def run_sqlite(path, transactions):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data TEXT)")
    for number in range(transactions):
        database.execute("BEGIN")
        database.execute("INSERT INTO t VALUES (?, ?)", (number, small_body(number)[:200].hex()))
        database.execute("COMMIT")
    database.close()


def check_sqlite(path, transactions):
    database = sqlite3.connect(path)
    expect("integrity", database.execute("PRAGMA integrity_check").fetchone(), ("ok",))
    expect("rows", database.execute("SELECT count(*), max(id) FROM t").fetchone(), (transactions, transactions - 1))
    database.close()


def header_tree(count):
    """{name: bytes}: sizes spread as those of C headers are."""
    chosen = random.Random(7)
    return {f"tree/dir{n % 60:02}/sub{n % 7}/header{n:04}.h":
            chosen.randbytes(min(200000, int(chosen.lognormvariate(8.3, 1.2))) // 2 + 1).hex().encode()
            for n in range(count)}


def make_tar(path, tree):
    with tarfile.open(path, "w") as archive:
        source = path.parent / "tar-source"
        for name, body in tree.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(body)
        archive.add(source / "tree", "tree")
        shutil.rmtree(source)


def git(directory, *words):
    env = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null")
    for who in ("AUTHOR", "COMMITTER"):
        env.update({f"GIT_{who}_NAME": "bench", f"GIT_{who}_EMAIL": "bench@example.org"})
    done = subprocess.run(["git", "-C", str(directory), *words], env=env, capture_output=True, text=True, check=False)
    expect(f"git {words[0]}", (done.returncode, done.stderr if done.returncode else ""), (0, ""))
    return done.stdout


def git_commits(directory):
    directory.mkdir()
    git(directory, "init", "-q", "-b", "main")
    for commit in range(5):
        for number in range(10):
            (directory / f"file{number}").write_bytes(small_body(commit * 10 + number)[:3000].hex().encode())
        git(directory, "add", ".")
        git(directory, "commit", "-q", "-m", f"commit {commit}")
    git(directory, "fsck", "--strict", "--no-progress")


def apps(system, rows, bench):
    database, repository = system.mnt / "db", system.mnt / "git"
    rows.take("apps.sqlite", lambda: run_sqlite(database, bench.transactions))
    if system.keeps_files():
        rows.mark("apps.sqlite", system.store.digest(system.bucket, "db") == digest_of(database))
    rows.take("apps.git", lambda: git_commits(repository))
    system.cold()
    check_sqlite(database, bench.transactions)
    git(repository, "fsck", "--strict", "--no-progress")
    expect("commits", git(repository, "rev-list", "--count", "HEAD"), "5\n")
    tree, archive = bench.tree, bench.dir / "tree.tar"
    untar = ["tar", "-x", "-f", str(archive), "-C", str(system.mnt)]
    rows.take("apps.untar", lambda: subprocess.run(untar, check=True))
    rows.take_stored("apps.untar.stored", "apps.untar")
    if system.keeps_files():
        found = system.store.list(system.bucket)
        expect("headers in the bucket", {n: found.get(n) for n in tree}, {n: len(b) for n, b in tree.items()})
    system.cold()
    for name, body in tree.items():
        expect(name, (system.mnt / name).read_bytes() == body, True)


def latency(system, rows, bench):
    """The store answers late from the mount to the unmount: toxiproxy does not change connections that are stuck."""
    count = min(bench.big_blocks, 128)
    bodies = {name: small_body(n) for n, name in enumerate(small_names(min(200, bench.small_count)))}
    create_small(system.mnt, bodies)
    write_big(system.mnt / "big", count)
    system.forget()
    with bench.late():
        system.mount()
        rows.take("latency.read.cold", lambda: read_small(system.mnt, bodies))
        system.forget()
        system.mount()
        offsets = random_offsets(3, 400, count * BLOCK)
        got = rows.take("latency.random.cold", lambda: read_at(system.mnt / "big", offsets))
        system.umount()
    expect("random reads", hashlib.sha256(b"".join(got)).hexdigest(), bench.digest_at(offsets))


WORK = {"small": small, "big": big, "apps": apps, "latency": latency}


def busy_share(seconds):
    """Of the processors' time."""
    def jiffies():
        times = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(times), times[3]  # idle; who waits for the disk is not
    before = jiffies()
    time.sleep(seconds)
    after = jiffies()
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def calm_down():
    """Whoever was before leaves work to the disk and the store, which nobody else is to pay for."""
    os.sync()
    deadline = time.monotonic() + CALM_TIMEOUT
    while busy_share(0.5) > CALM_SHARE and time.monotonic() < deadline:
        pass


# ---- the floor ----------------------------------------------------------------------------------------


def floor_small(plans, bench):
    sizes = {name: SMALL_SIZE for name in small_names(bench.small_count)}
    pairs = [(name, name.replace("small/", "moved/", 1)) for name in sizes]
    return {"small.stored": plans.put_all(sizes), "small.read.cold": plans.get_all(sizes),
            "small.rename.stored": plans.rename_all(pairs),
            "small.delete.stored": plans.delete_all([new for _, new in pairs])}


def floor_big(plans, bench):
    size = bench.big_blocks * BLOCK
    return {"big.stored": plans.put_large("big", size), "big.read.cold": plans.get_large("big", size),
            "big.read.kept": plans.keep_large("big", size),
            "big.random.cold": plans.random_reads("big", size, random_offsets(3, 400, size)),
            "big.patch": plans.patch("big", size, random_offsets(5, 20, size)),
            "big.append": plans.append("big", size, 100000)}


def floor_apps(plans, bench):
    return {"apps.sqlite": plans.sqlite(bench.transactions, 28 << 10),
            "apps.untar.stored": plans.put_all({name: len(body) for name, body in bench.tree.items()})}


def floor_latency(plans, bench):
    size = min(bench.big_blocks, 128) * BLOCK
    sizes = {name: SMALL_SIZE for name in small_names(min(200, bench.small_count))}
    plans.put_all(sizes)
    plans.put_large("big", size)
    with bench.late():
        return {"latency.read.cold": plans.get_all(sizes),
                "latency.random.cold": plans.random_reads("big", size, random_offsets(3, 400, size))}


FLOORS = {"small": floor_small, "big": floor_big, "apps": floor_apps, "latency": floor_latency}


# ---- the run ----------------------------------------------------------------------------------------


def gathered(works):
    """(row, its values in all rounds)"""
    rows = {}
    for rounds in works.values():
        for values in rounds:
            for row, value in values.items():
                rows.setdefault(row, []).append(value)
    return rows.items()


class Late:
    """While it lasts, the store answers `ms` later."""

    def __init__(self, api, ms):
        self.api, self.ms = api, ms

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.api + path, body and json.dumps(body).encode(), method=method)
        urllib.request.urlopen(request, timeout=10).close()

    def __enter__(self):
        self.call("POST", "/proxies/store/toxics", {"name": "late", "type": "latency", "stream": "downstream",
                                                    "attributes": {"latency": self.ms, "jitter": 0}})

    def __exit__(self, *_):
        self.call("DELETE", "/proxies/store/toxics/late")


class Bench:
    def __init__(self, options):
        self.options = options
        self.small_count = max(20, int(1000 * options.scale))
        self.big_blocks = max(8, int(128 * options.scale))
        self.transactions = max(5, int(50 * options.scale))
        self.tree = header_tree(max(50, int(4000 * options.scale)))
        self.dir = BUILD / "bench" / f"run.{os.getpid()}"
        self.env = dict(os.environ)
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"):
            self.env.pop(name, None)
        self.env.setdefault("VARVE", str(BUILD / "varve"))
        self.pid_files, self.children = [], []
        self.versions, self.rounds, self.api = {}, {}, None
        self.load = os.getloadavg()[0]

    def digest_at(self, offsets):
        block, found = bytearray(random.Random(2).randbytes(BLOCK)), hashlib.sha256()
        for offset in offsets:
            block[:8] = (offset // BLOCK).to_bytes(8, "little")
            found.update(block[offset % BLOCK:offset % BLOCK + 4096])
        return found.hexdigest()

    def late(self):
        return Late(self.api, self.options.latency)

    # ---- servers

    def find(self, variable, name):
        """A program: named by its variable, where packaging/setup puts it, or on PATH."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "varve" / "bin" / name
        found = os.environ.get(variable) or (str(cache) if cache.exists() else shutil.which(name))
        if found:
            self.env[variable] = os.path.abspath(found)

    def server(self, script, *words):
        directory = self.dir / "servers" / script
        directory.mkdir(parents=True)
        self.pid_files.append(directory / f"{script}.pid")
        started = subprocess.run([str(TOP / "tests/servers" / f"{script}.sh"), str(directory), *words], env=self.env,
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        if started.returncode:
            raise RuntimeError(f"{script} does not start: {started.stderr.strip()}")
        return started.stdout.strip()

    def start(self):
        for variable, name in (("MINIO", "minio"), ("TOXIPROXY", "toxiproxy-server"), ("RCLONE", "rclone"),
                               ("JUICEFS", "juicefs"), ("GEESEFS", "geesefs"), ("VARVE", "varve")):
            self.find(variable, name)
        if "MINIO" not in self.env:
            sys.exit("bench: no minio: run packaging/setup --bench, or set MINIO")
        # Nothing of the store is to be measured but the store: no encryption at rest.
        self.env["SSE"] = "0"
        self.endpoint = self.server("minio", str(free_port()))
        self.store = http_floor.Store(self.endpoint, ACCESS, SECRET)
        self.late_endpoint = None
        if self.options.latency:
            if "TOXIPROXY" not in self.env:
                sys.exit("bench: no toxiproxy-server: run packaging/setup --bench, or set TOXIPROXY")
            port = free_port()
            self.api = self.server("toxiproxy", str(free_port()), "store", str(port), self.endpoint.split("//")[1])
            self.late_endpoint = f"http://127.0.0.1:{port}"

    def start_redis(self):
        port = free_port()
        directory = self.dir / "redis"
        directory.mkdir()
        self.children.append(subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), "--save", "",
             "--appendonly", "no"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self.env["REDIS_PORT"] = str(port)

    def clean_up(self):
        for child in self.children:
            child.terminate()
            child.wait()
        subprocess.run([str(TOP / "tests/servers/stop.sh")] + [str(path) for path in self.pid_files if path.exists()],
                       check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- what is there

    def choose(self):
        """The systems asked for that are here; those that are not get a line."""
        chosen = []
        for name in self.options.systems:
            missing = [need for need in NEEDS.get(name, ())
                       if (need not in self.env if need.isupper() else not shutil.which(need))]
            if missing:
                how = "set GEESEFS to its binary" if name == "geesefs" else "packaging/setup --bench installs it"
                print(f"bench: {name} is left out: no {', '.join(missing).lower()} here ({how})", flush=True)
            else:
                chosen.append(name)
        if any(name.startswith("juicefs") for name in chosen):
            self.start_redis()
        for name in chosen:
            self.versions[name] = subprocess.run(
                [str(HERE / "systems" / name), "version"], env=dict(self.env, CACHE=str(self.dir / "x"), MNT="/"),
                capture_output=True, text=True, check=False).stdout.strip()
        self.versions["minio"] = subprocess.run([self.env["MINIO"], "--version"], capture_output=True, text=True,
                                                check=False).stdout.split("\n")[0]
        return chosen

    # ---- one piece of work

    def work(self, name, work, pipe):
        endpoint = self.late_endpoint if work == "latency" else self.endpoint
        system = System(name, self, work, endpoint)
        rows = Rows(system)
        try:
            system.begin()
            WORK[work](system, rows, self)
            if os.path.ismount(system.mnt):
                system.umount()
        except Exception as error:  # pylint: disable=broad-except # whatever a peer does, the run goes on
            rows.values[f"{work}.error"] = f"{type(error).__name__}: {error}"[:500]
        finally:
            pipe.send(rows.values)
            system.close()

    def run_work(self, name, work):
        calm_down()
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.Process(target=self.work, args=(name, work, theirs))
        child.start()
        theirs.close()
        rows = {f"{work}.error": f"no end after {WORK_TIMEOUT} s"}
        try:
            if ours.poll(WORK_TIMEOUT):
                rows = ours.recv()
        except EOFError:
            rows = {f"{work}.error": "the measuring process died"}
        except BaseException:
            child.terminate()  # it takes its mount away
            raise
        finally:
            child.join(30)
        if child.is_alive():
            self.rescue(name, work, child)
        shutil.rmtree(self.dir / f"{name}.{work}", ignore_errors=True)
        self.note(name, work, rows)

    def rescue(self, name, work, child):
        """A filesystem that does not answer holds whoever asked it; its daemon's end lets go."""
        mnt = str(self.dir / f"{name}.{work}" / "mnt")
        for pid in with_environment(f"MNT={mnt}"):
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["umount", "-l", mnt], stderr=subprocess.DEVNULL, check=False)
        child.kill()
        child.join(10)

    def run_floor(self, work):
        calm_down()
        bucket = f"bench-floor-{work}"
        store = http_floor.Store(self.late_endpoint, ACCESS, SECRET) if work == "latency" else self.store
        self.store.make_bucket(bucket, True)
        try:
            plans = http_floor.Floor(store, str(BUILD / "bench/http_plan"), bucket, drop_kernel_caches, self.dir)
            rows = FLOORS[work](plans, self)
        finally:
            self.store.remove_bucket(bucket)
        self.note("floor", work, {row: {"seconds": round(seconds, 4)} for row, seconds in rows.items()})

    def note(self, name, work, rows):
        told = {row: value["seconds"] if isinstance(value, dict) else value for row, value in rows.items()}
        print(f"{name} {work} {json.dumps(told)}", flush=True)
        self.rounds.setdefault(name, {}).setdefault(work, []).append(rows)

    def run(self):
        self.dir.mkdir(parents=True)
        self.start()
        chosen = self.choose()
        if "apps" in self.options.work:
            make_tar(self.dir / "tree.tar", self.tree)
        for work in self.options.work:
            for _ in range(self.options.rounds):
                for name in chosen:
                    if work in ONLY.get(name, WORK):
                        self.run_work(name, work)
                self.run_floor(work)

    def results(self):
        """By system and row: the round with the median time, the largest memory of all; stored, if in every round."""
        found = {}
        for name, works in self.rounds.items():
            rows = found.setdefault(name, {})
            for row, values in gathered(works):
                if row.endswith(".error"):
                    rows[row] = values[0]
                    continue
                rows[row] = dict(sorted(values, key=lambda value: value["seconds"])[(len(values) - 1) // 2])
                rows[row]["rounds"] = [value["seconds"] for value in values]
                if "rss_mib" in rows[row]:
                    rows[row]["rss_mib"] = max(value["rss_mib"] for value in values)
                if "stored" in rows[row]:
                    rows[row]["stored"] = all(value.get("stored") for value in values)
        return found

    def report(self):
        cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
               if line.startswith("model name")]
        head = subprocess.run(["git", "-C", str(TOP), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        changed = subprocess.run(["git", "-C", str(TOP), "status", "--porcelain"], capture_output=True, text=True,
                                 check=False)
        return {
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": {"cpu": cpu[0] if cpu else "unknown", "cores": os.cpu_count(), "kernel": os.uname().release,
                        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB,
                        "load_at_begin": self.load},
            "commit": head.stdout.strip() or None, "changed": bool(changed.stdout.strip()),
            "versions": self.versions, "scale": self.options.scale, "latency_ms": self.options.latency,
            "rounds": self.options.rounds, "results": self.results(),
        }


class Table:
    """A report as text. The ratios are those of `ours`."""

    def __init__(self, report, ours):
        self.results, self.latency, self.ours = report["results"], report["latency_ms"], ours
        self.scale, self.load = report["scale"], report["machine"]["load_at_begin"]
        self.rounds = report.get("rounds", 1)

    def best_peer(self, row):
        best = [self.results[name][row]["seconds"] for name in PEERS
                if row in self.results.get(name, {}) and self.results[name][row].get("stored", True)]
        return min(best, default=None)

    def cell(self, name, row):
        value = self.results[name].get(row)
        if value is None:
            return ""
        return f"{value['seconds']:.3f}" + ("~" if value.get("stored") is False else "")

    def row(self, row, columns):
        title = f"{self.latency} ms: {TITLES[row]}" if row.startswith("latency") else TITLES[row]
        ours = self.results.get(self.ours, {}).get(row, {})
        against = (self.best_peer(row), self.results.get("floor", {}).get(row, {}).get("seconds"))
        ratios = [f"{ours['seconds'] / other:.2f}" if ours and other else "" for other in against]
        return (f"{title:<42}" + "".join(f"{self.cell(name, row):>11}" for name in columns) +
                f"{ratios[0]:>8}{ratios[1]:>8}{ours.get('rss_mib', ''):>7}")

    def lines(self):
        columns = [name for name in SYSTEMS + ("floor",) if name in self.results]
        yield f"{'seconds':<42}" + "".join(f"{name:>11}" for name in columns) + f"{'/peer':>8}{'/floor':>8}{'MiB':>7}"
        for row in TITLES:
            if any(row in rows for rows in self.results.values()):
                yield self.row(row, columns)
        yield (f"scale {self.scale:g} (the counts in the titles are those of scale 1), "
               f"medians of {self.rounds} round(s), load at the beginning {self.load:.1f}")
        yield (f"~ not in the bucket when fsync() returned; /peer: {self.ours} to the best that stores files; "
               f"MiB: the peak of {self.ours}")
        for name, rows in self.results.items():
            for row, value in rows.items():
                if row.endswith(".error"):
                    yield f"{name}: {row.removesuffix('.error')} failed: {value}"


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--systems", default="varve", help=f"of {','.join(SYSTEMS)}, or all (default: varve)")
    parser.add_argument("--work", default="small,big,apps", help="of small,big,apps")
    parser.add_argument("--latency", type=int, default=0, metavar="MS", help="also cold reads with a store this late")
    parser.add_argument("--scale", type=float, default=1.0, help="1: 1,000 small files, 512 MiB")
    parser.add_argument("--rounds", type=int, default=1, help="all take turns so often (default: 1)")
    parser.add_argument("--ours", default="varve", choices=OURS, help="whose ratios are shown (default: varve)")
    parser.add_argument("--show", type=Path, metavar="FILE", help="only print the table of this JSON")
    parser.add_argument("--out", type=Path, help="JSON (default: $BUILD/bench/result.json)")
    options = parser.parse_args()
    options.systems = SYSTEMS if options.systems == "all" else options.systems.split(",")
    options.work = [work for work in options.work.split(",") if work] + (["latency"] if options.latency else [])
    for given, known in ((options.systems, SYSTEMS), (options.work, WORK)):
        if set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(set(given) - set(known)))}")
    if os.geteuid() != 0 and not options.show:
        parser.error("dropping the kernel's caches needs root")
    return options


def main():
    options = parse()
    if options.show:
        print("\n".join(Table(json.loads(options.show.read_text()), options.ours).lines()))
        return 0
    bench = Bench(options)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    interrupted = None
    try:
        bench.run()
    except (KeyboardInterrupt, SystemExit) as cause:  # what was measured so far is told all the same
        interrupted = cause
    finally:
        bench.clean_up()
    if interrupted and not bench.rounds:
        raise interrupted
    report = bench.report()
    out = options.out or BUILD / "bench" / "result.json"
    out.write_text(json.dumps(report, indent=1) + "\n")
    print("\n" + "\n".join(Table(report, options.ours).lines()) + f"\nJSON in {out}")
    failed = any(row.endswith(".error") for name in OURS for row in report["results"].get(name, ()))
    return int(failed or interrupted is not None)


if __name__ == "__main__":
    sys.exit(main())
