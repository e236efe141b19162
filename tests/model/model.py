#!/usr/bin/env python3
"""Random work on a varve mount against a model of names and versions, through remounts, kills, the loss of the catalog,
and changes that others make in the store.

    model.py [--store file|s3|s3-unversioned] [--seed N] [--ops N] [--replay FILE]

The model derives from the definition, without any thought of speed: a name is a row of intervals in which a node held
it, a file a row of versions; history(name) is, for each interval, the file's versions current in it, and a pure rename
to a free name brings the old name's history before it; a directory removed and made again goes on with the past it
had; +at/T is the tree as it was. Compared are the live tree, the
contents behind every entry of .versions in their order, +at of past instants, over the loss of the catalog the names
of all versions, and what lies in the store: one object a file, at its path.

Others put and delete objects while all is stored, while nothing is mounted, and while changes made here cannot be sent:
  - what they put is the file, a new one: it takes the name, whose history goes on with it
  - what they delete is gone from the tree, and a directory of which the store has nothing left with it
  - but for what was changed here and not sent: what they put at its key is the file, and ours stays before it in the
    history, as a conflict; what they deleted comes back with our change
  - where the store keeps no versions by itself, what they overwrote or deleted is lost, and shown nowhere (so is what
    was changed a part of meanwhile, unless it was read before: here it is)
  - single versions that they delete are shown nowhere, the others as before

A failure prints its seed, is shrunk to few operations by running parts of them anew, and leaves these in
$TMPDIR/model-SEED.json for --replay. Environment: VARVE, TMPDIR; for S3 VARVE_TEST_S3_ENDPOINT, VARVE_TEST_TOXIPROXY and
AWS_*.
"""

import argparse
import datetime
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import s3  # noqa: E402, another program's client

VARVE = os.environ.get("VARVE") or str(HERE.parent.parent / "build" / "varve")
MODES = ("new", "new", "append", "patch")
EMPTY = hashlib.md5(b"").hexdigest()
NAMES = ("a", "b", "c.txt", "d", "e")
DEPTH = 3
INSTANTS = 40  # past trees kept for comparing
READY_SECONDS = 60
DRAIN_SECONDS = 120
NOTICE_SECONDS = 10  # until the kernel was told of what others did
SHRINK_SECONDS = 180
SLOW_SECONDS = 5  # worth a word
CLOCK_AHEAD = 0.12  # the catalog's clock after a kill, seconds


class Mismatch(Exception):
    """The mount and the model disagree."""


# ---- the model ------------------------------------------------------------------------------------------------


class Version:
    """What a file held. `lost`: the store has it no more; `conflict`: others wrote the file while it was on its way."""

    def __init__(self, step, content):
        self.step = step
        self.shown = digest(content)
        self.etag = hashlib.md5(content).hexdigest()
        self.lost = self.conflict = False


class Node:
    """A file, directory or symlink. Directories: names and what these held."""

    def __init__(self, kind, target=""):
        self.kind = kind
        self.target = target
        self.links = 0
        self.versions = []
        self.bytes = b""
        self.names = {}  # live: name -> Node
        self.past = {}  # name -> [Interval], the live one last

    def write(self, step, content):
        self.bytes = content
        self.versions.append(Version(step, content))


class Interval:
    def __init__(self, node, since, origin, previous_until):
        self.node = node
        self.since = since
        self.until = None
        self.removed = False  # how it ended: not renamed, not replaced
        self.origin = origin  # (directory, name) it was renamed from
        self.free = previous_until != since


class Model:
    def __init__(self):
        self.root = Node("dir")
        self.step = 0

    def tick(self):
        self.step += 1
        return self.step

    def walk(self, path):
        node = self.root
        for name in path:
            node = node.names.get(name) if node and node.kind == "dir" else None
        return node

    def bind(self, parent, name, node, origin=None):
        row = parent.past.setdefault(name, [])
        row.append(Interval(node, self.step, origin, row[-1].until if row else None))
        parent.names[name] = node
        node.links += 1

    def release(self, parent, name, removed=False):
        node = parent.names.pop(name)
        parent.past[name][-1].until = self.step
        parent.past[name][-1].removed = removed
        node.links -= 1
        return node

    def make_directory(self, parent, name):
        node = Node("dir")
        before = [interval for interval in parent.past.get(name, ()) if interval.node.kind == "dir"]
        if before and before[-1].removed:
            node.past = before[-1].node.past
        self.bind(parent, name, node)

    def history(self, parent, name):
        """Versions and symlinks' targets, in the order of .versions."""
        entries, seen = [], set()
        stack = [(parent, name, None)]
        while stack:
            directory, current, upto = stack.pop()
            for interval in directory.past.get(current, ()):
                if upto is not None and (interval.until is None or interval.until > upto):
                    continue
                if (id(directory.past), current, interval.since) in seen:
                    continue
                seen.add((id(directory.past), current, interval.since))
                if interval.node.kind == "dir":
                    continue
                brought = interval.origin and interval.free
                if brought:
                    stack.append((*interval.origin, interval.since))
                if interval.node.kind == "symlink":  # told of under its own names only
                    if upto is None:
                        entries.append((interval.since, "-> " + interval.node.target))
                    continue
                before = [version for version in interval.node.versions if version.step <= interval.since]
                if before and not brought:
                    entries.append((interval.since, before[-1]))
                for version in interval.node.versions:
                    if version.step > interval.since and (interval.until is None or version.step < interval.until):
                        entries.append((version.step, version))
        return [what for _, what in sorted(entries, key=lambda entry: entry[0])
                if isinstance(what, str) or not what.lost]

    def tree(self, node=None, path=()):
        """{path: Version, or "/", or "-> target"}."""
        found = {}
        for name, child in (node or self.root).names.items():
            if child.kind == "dir":
                found["/".join((*path, name))] = "/"
                found.update(self.tree(child, (*path, name)))
            elif child.kind == "symlink":
                found["/".join((*path, name))] = "-> " + child.target
            else:
                found["/".join((*path, name))] = child.versions[-1]
        return found

    def links(self, node=None, path=()):
        """{file: its paths, the oldest name first}"""
        found = {}
        for name, child in (node or self.root).names.items():
            if child.kind == "dir":
                for file, names in self.links(child, (*path, name)).items():
                    found.setdefault(file, []).extend(names)
            else:
                since = (node or self.root).past[name][-1].since
                found.setdefault(child, []).append((since, "/".join((*path, name))))
        return {file: sorted(names) for file, names in found.items()}


# ---- the store, as others see it --------------------------------------------------------------------------------


class Bucket:
    def __init__(self, name, versioned):
        self.name = name
        self.keeps_lost = versioned  # what is overwritten or deleted lives on as a version

    def objects(self, known):
        """{key: etag} of what is current outside .varve/. MinIO lists nothing beneath a/ while the newest version of a is
        a delete marker: keys that are known are asked for."""
        found = {key: etag for key, etag in s3.listed(self.name) if not key.startswith(".varve/")}
        for key in known - found.keys() if self.keeps_lost else ():
            try:
                found[key] = hashlib.md5(s3.request("GET", s3.path_of(self.name, key))).hexdigest()
            except s3.Refused as refused:
                if refused.status != 404:
                    raise
        return found

    def etags(self):
        """{etag: how many objects have it}, .varve/ and all versions included."""
        counts = {}
        for _, _, etag in self.all_versions():
            counts[etag] = counts.get(etag, 0) + 1
        return counts

    def all_versions(self):
        """[(key, id, etag)]; ids "" where there are none"""
        if not self.keeps_lost:
            return [(key, "", etag) for key, etag in s3.listed(self.name)]
        return s3.all_versions(self.name)

    def ever(self, key):
        """Is or was there an object at the key?"""
        return next(s3.versions(self.name, key), None) is not None

    def put(self, key, content):
        s3.request("PUT", s3.path_of(self.name, key), body=content)

    def delete(self, key, version=""):
        s3.request("DELETE", s3.path_of(self.name, key), [("versionId", version)] if version else [])


class Proxy:
    """Between the mount and its store, to be cut."""

    def __init__(self):
        self.api = os.environ["VARVE_TEST_TOXIPROXY"]
        self.name = f"model{os.getpid()}-{time.time_ns():x}"
        upstream = os.environ["VARVE_TEST_S3_ENDPOINT"].split("://", 1)[1]
        made = self.ask("POST", "proxies", {"name": self.name, "listen": "127.0.0.1:0", "upstream": upstream})
        self.endpoint = "http://" + made["listen"]

    def ask(self, method, resource, body=None):
        request = urllib.request.Request(f"{self.api}/{resource}", json.dumps(body).encode() if body else None,
                                         {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read() or b"{}")

    def enable(self, enabled):
        self.ask("POST", f"proxies/{self.name}", {"enabled": enabled})

    def close(self):
        self.ask("DELETE", f"proxies/{self.name}")


# ---- the mount ------------------------------------------------------------------------------------------------


class Mount:
    def __init__(self, store):
        self.top = Path(tempfile.mkdtemp(prefix="model-", dir=os.environ.get("TMPDIR")))
        self.dir, self.state, self.log = self.top / "mnt", self.top / "state", self.top / "log"
        self.dir.mkdir()
        self.daemon = self.bucket = self.proxy = None
        self.ahead_until = 0
        self.options = [f"state={self.state}", "create", "sweep=0"]
        if store == "file":
            self.url = f"file://{self.top}/store"
        else:
            name = f"m{os.getpid()}-{time.time_ns():x}"
            self.url = f"s3://{name}"
            self.proxy = Proxy()
            self.bucket = Bucket(name, store == "s3")
            self.options.append("endpoint=" + self.proxy.endpoint)
            if store == "s3-unversioned":
                s3.request("PUT", f"/{name}")

    def start(self):
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen([VARVE, "mount", "-f", self.url, str(self.dir), "-o",
                                            ",".join(self.options)], stdout=log, stderr=log)
        before = self.top.stat().st_dev
        deadline = time.monotonic() + READY_SECONDS
        while self.dir.stat().st_dev == before:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise Mismatch("does not mount: " + self.log.read_text(errors="replace")[-800:])
            time.sleep(0.01)

    def stop(self):
        try:
            done = subprocess.run([VARVE, "umount", str(self.dir)], capture_output=True, text=True, check=False,
                                  timeout=DRAIN_SECONDS)
        except subprocess.TimeoutExpired as late:
            raise Mismatch(f"umount does not end: {late.stderr}") from late
        if done.returncode:
            raise Mismatch(f"umount: {done.returncode} {done.stderr}")
        self.daemon.wait()

    def kill(self):
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()
        self.ahead_until = max(self.ahead_until, time.monotonic()) + CLOCK_AHEAD  # each kill adds to it
        subprocess.run(["umount", "-l", str(self.dir)], check=False, stderr=subprocess.DEVNULL)

    def catch_up(self):
        """What others do now is later than what was done here by the clocks of both. Versions have a millisecond each."""
        time.sleep(max(0, self.ahead_until - time.monotonic()) + 0.02)

    def ask(self, op):
        """The control socket's answers to a request, one after the other."""
        name = hashlib.sha256(str(self.dir).encode()).hexdigest()[:16] + ".sock"
        places = ("/run/varve", os.environ.get("XDG_RUNTIME_DIR", "") + "/varve", f"/run/user/{os.getuid()}/varve")
        path = next(path for path in (f"{place}/{name}" for place in places) if os.path.exists(path))
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(DRAIN_SECONDS)
            asked.connect(path)
            asked.sendall(json.dumps({"op": op}).encode() + b"\n")
            with asked.makefile() as lines:
                for line in lines:
                    yield json.loads(line)

    def drain(self):
        deadline = time.monotonic() + DRAIN_SECONDS
        next(self.ask("hurry"))
        for figures in self.ask("drain"):
            if figures.get("done"):
                return
            if time.monotonic() > deadline:
                raise Mismatch(f"not everything is stored: {figures}")

    def sweep(self):
        before = next(self.ask("status"))["others"]
        next(self.ask("sweep"))
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            now = next(self.ask("status"))["others"]
            if now["broken_off"] != before["broken_off"]:
                raise Mismatch("a sweep broke off: " + now["last_error"])
            if now["sweeps"] > before["sweeps"]:
                return
            time.sleep(0.005)
        raise Mismatch("the sweep does not end")

    def check(self):
        done = subprocess.run([VARVE, "fsck", str(self.state)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Mismatch("fsck: " + done.stdout + done.stderr)

    def forget(self):
        shutil.rmtree(self.state)

    def clean(self):
        if self.daemon and self.daemon.poll() is None:
            self.kill()
        if self.proxy:
            self.proxy.close()
        shutil.rmtree(self.top, ignore_errors=True)


def digest(content):
    return f"{len(content)}:{hashlib.sha256(content).hexdigest()[:12]}"


def shown(path):
    """What a path of the mount holds, in the words of the model."""
    if os.path.islink(path):
        return "-> " + os.readlink(path)
    try:
        with open(path, "rb") as file:
            return digest(file.read())
    except OSError as wrong:
        raise Mismatch(f"{path}: {wrong.strerror}") from wrong


def tree_of(top):
    found = {}
    for base, dirs, files in os.walk(top):
        for name in dirs:
            path = os.path.join(base, name)
            found[os.path.relpath(path, top)] = "-> " + os.readlink(path) if os.path.islink(path) else "/"
        for name in files:
            path = os.path.join(base, name)
            found[os.path.relpath(path, top)] = shown(path)
    return found


def seen(tree):
    """A tree of the model as it is shown now."""
    return {path: what if isinstance(what, str) else what.shown for path, what in tree.items()
            if isinstance(what, str) or not what.lost}


def different(expected, found):
    lines = [f"{key}: {expected.get(key)} expected, {found.get(key)} found"
             for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
    return "; ".join(lines[:5])


# ---- operations: made for the model as it is, so that any part of a list can be run ---------------------------------


class Run:
    def __init__(self, store):
        self.model = Model()
        self.mount = Mount(store)
        self.instants = []  # (ns, tree)
        self.nodes = []  # every file there ever was
        self.dice = random.Random(1)  # for what is compared, never for what is done
        self.last_ns = 0
        self.moved = 0  # step of the last change of a file's first name while nothing could be sent

    def path(self, parts):
        return os.path.join(self.mount.dir, *parts)

    def settle(self, parts):
        """The kernel releases a closed file when it likes; the next who opens it to write waits until that is a version."""
        os.close(os.open(self.path(parts), os.O_WRONLY))

    def bring(self, path):
        """All of it into the cache of the mount: the kernel may have what the mount has not."""
        if not os.path.islink(self.path((path,))):
            with open(self.path((path,)), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.read()

    def remember(self):
        if time.monotonic() < self.mount.ahead_until:
            return
        now = max(time.time_ns(), self.last_ns + 1)
        self.last_ns = now
        place = len(self.instants) if len(self.instants) < INSTANTS else self.dice.randrange(INSTANTS)
        if len(self.instants) < INSTANTS:
            self.instants.append(None)
        elif self.dice.random() < 0.9:
            return
        self.instants[place] = (now, self.model.tree())
        time.sleep(0.000002)

    def operate(self, op):
        kind, *args = op
        getattr(self, "do_" + kind)(*args)

    def target(self, parts):
        """(parent, name, node) of a path whose directory lives."""
        parent = self.model.walk(parts[:-1])
        if not parent or parent.kind != "dir":
            return None, None, None
        return parent, parts[-1], parent.names.get(parts[-1])

    def new_file(self, parent, name):
        node = Node("file")
        self.model.bind(parent, name, node)
        self.nodes.append(node)
        return node

    def do_write(self, parts, content, mode):
        parent, name, node = self.target(parts)
        if not parent or (node and node.kind != "file"):
            return
        data = content.encode() * (1 + len(content) % 7)
        step = self.model.tick()
        if not node:
            node = self.new_file(parent, name)
            step = self.model.tick()
        with open(self.path(parts), {"new": "wb", "append": "ab", "patch": "r+b"}[mode]
                  if node.versions or mode != "patch" else "wb") as file:
            old = node.bytes
            if mode == "patch" and node.versions:
                at = len(old) // 2
                file.seek(at)
                node.write(step, old[:at] + data + old[at + len(data):])
            else:
                node.write(step, old + data if mode == "append" else data)
            file.write(data)
        self.settle(parts)

    def do_copy(self, source, parts):
        """As cp does it: of a large file the mount carries no bytes then, and here of small ones, too."""
        _, _, origin = self.target(source)
        parent, name, node = self.target(parts)
        if not origin or origin.kind != "file" or not origin.bytes or origin is node:
            return
        if not parent or (node and node.kind != "file"):
            return
        step = self.model.tick()
        if not node:
            node = self.new_file(parent, name)
            step = self.model.tick()
        node.write(step, origin.bytes)
        with open(self.path(source), "rb") as bytes_from, open(self.path(parts), "wb") as file:
            left = len(origin.bytes)
            while left:
                left -= os.copy_file_range(bytes_from.fileno(), file.fileno(), left)
        self.settle(parts)

    def do_truncate(self, parts, size):
        parent, _, node = self.target(parts)
        if not parent or not node or node.kind != "file" or size == len(node.bytes):
            return
        os.truncate(self.path(parts), size)
        node.write(self.model.tick(), (node.bytes + bytes(max(0, size - len(node.bytes))))[:size])

    def do_mkdir(self, parts):
        parent, name, node = self.target(parts)
        if not parent or node or len(parts) >= DEPTH:
            return
        os.mkdir(self.path(parts))
        self.model.tick()
        self.model.make_directory(parent, name)

    def do_symlink(self, parts, target):
        parent, name, node = self.target(parts)
        if not parent or node:
            return
        os.symlink(target, self.path(parts))
        self.model.tick()
        self.model.bind(parent, name, Node("symlink", target))

    def do_link(self, old, new):
        _, _, node = self.target(old)
        parent, name, taken = self.target(new)
        if not node or node.kind != "file" or not parent or taken:
            return
        os.link(self.path(old), self.path(new))
        self.model.tick()
        self.model.bind(parent, name, node)

    def do_unlink(self, parts):
        parent, name, node = self.target(parts)
        if not parent or not node or node.kind == "dir":
            return
        os.unlink(self.path(parts))
        self.model.tick()
        self.model.release(parent, name, removed=True)

    def do_rmtree(self, parts):
        parent, name, node = self.target(parts)
        if not parent or not node or node.kind != "dir":
            return
        for child, what in sorted(node.names.items()):
            (self.do_rmtree if what.kind == "dir" else self.do_unlink)((*parts, child))
        os.rmdir(self.path(parts))
        self.model.tick()
        self.model.release(parent, name, removed=True)

    def do_rename(self, old, new):
        source, name, node = self.target(old)
        parent, new_name, taken = self.target(new)
        if not source or not node or not parent or node is taken or new[:len(old)] == old:
            return
        if taken and (taken.kind == "dir") != (node.kind == "dir"):
            return
        if taken and taken.names or (node.kind == "dir" and self.height(node) + len(new) > DEPTH):
            return
        os.rename(self.path(old), self.path(new))
        self.model.tick()
        self.model.release(source, name)
        if taken:
            self.model.release(parent, new_name)
        self.model.bind(parent, new_name, node, (source, name))

    def height(self, node):
        return 1 + max((self.height(child) for child in node.names.values() if child.kind == "dir"), default=0)

    # ---- what happens to the mount

    def do_remount(self):
        self.mount.stop()
        self.mount.check()
        self.mount.start()

    def do_kill(self):
        self.mount.kill()
        self.mount.start()

    def do_lose_catalog(self):
        before = self.version_names()
        self.mount.stop()
        self.mount.check()
        self.mount.forget()
        self.mount.start()
        after = self.version_names()
        if before != after:
            raise Mismatch("names of versions after the loss of the catalog: " + different(before, after))
        self.compare_some(names=24, instants=8)

    # ---- what others do

    def do_others(self, when, ours, theirs):
        """`ours` is done while it cannot be sent; others put and delete then, or while all is stored or unmounted."""
        if not self.mount.bucket:
            return
        self.mount.drain()
        self.compare_store()
        stored = self.model.step
        before = {path: node for node, names in self.model.links().items() for _, path in names}
        sent = {node: len(node.versions) for node in before.values()}
        if when == "unmounted":
            self.mount.stop()
        if when == "unsent":
            if not self.mount.bucket.keeps_lost:
                for names in self.model.links().values():
                    self.bring(names[0][1])
            self.mount.proxy.enable(False)
            for op in ours:
                self.operate(op)
                if op[0] in ("rename", "unlink"):
                    self.moved = self.model.step
        self.mount.catch_up()
        objects, said = self.objects(), {}
        for path, key, content in sorted((("/".join(key), key, content) for key, content in theirs),
                                         key=lambda each: each[0]):  # as adopt() goes through them
            if (content is not None or path in objects) and self.may_be_others(key, before, objects):
                self.other(path, content and content.encode(), objects, stored)
                said.setdefault(path, []).append(content and content.encode())
                time.sleep(0.002)  # the store's times are in milliseconds
        if when == "unmounted":
            self.mount.start()
        if when == "unsent":
            self.mount.proxy.enable(True)
        self.adopt(said, sent)

    def other(self, path, content, objects, stored):
        """`stored`: the last step whose version the store has."""
        bucket = self.mount.bucket
        if not bucket.keeps_lost:
            for node in self.nodes:
                for version in node.versions:
                    if version.step <= stored and version.etag == objects.get(path):
                        version.lost = True
        if content is None:
            bucket.delete(path)
            del objects[path]
        else:
            bucket.put(path, content)
            objects[path] = hashlib.md5(content).hexdigest()

    def may_be_others(self, key, before, objects):
        """Not where a file and a directory would have one name, nor where only one that is moved here would be met."""
        path = "/".join(key)
        node, held = self.model.root, before.get(path)
        for name in key[:-1]:
            node = node.names.get(name) if node else None
            if node and node.kind != "dir":
                return False
        node = self.model.walk(key)
        if any(other.startswith(path + "/") for other in objects):
            return False
        above = ["/".join(key[:n]) for n in range(1, len(key))]
        if any(other in objects for other in above):
            return False
        if self.mount.bucket.keeps_lost and any(map(self.mount.bucket.ever, above)):
            return False  # MinIO would list nothing of it
        if not self.mount.bucket.keeps_lost and held:
            if held.links > 1 or (held.links and held is not node):
                return False
            if held is not node and not self.removed_at(key, held):
                return False  # it may have been on its way, and is stored from the cache
            if self.mount.bucket.etags().get(objects.get(path), 0) > 1:
                return False
        return not node or (node.kind != "dir" and (node is held or node not in before.values()))

    def removed_at(self, key, node):
        """Was this the last name of the node, and did it end by its removal?"""
        parent = self.model.walk(key[:-1])
        past = parent.past.get(key[-1], []) if parent and parent.kind == "dir" else []
        return any(interval.node is node and interval.removed for interval in past)

    def adopt(self, said, sent):
        """What is expected of what they did, and that it was noticed."""
        for path, contents in sorted(said.items()):
            self.adopt_one(path, contents, sent)
        self.mount.drain()
        objects = self.objects()
        for path, node in sorted(self.directories(), key=lambda found: -len(found[0])):
            key = "/".join(path) + "/"
            if path and not any(other.startswith(key) for other in objects):
                self.model.tick()
                for name in list(node.names):
                    self.model.release(node, name)
                self.model.release(self.model.walk(path[:-1]), path[-1], removed=True)
        for _ in range(3):  # what came and went is seen by the second, and the last one finds nothing to do
            self.mount.sweep()
            self.mount.drain()
        deadline = time.monotonic() + NOTICE_SECONDS
        while tree_of(self.mount.dir) != seen(self.model.tree()) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.compare_live()
        self.compare_store()

    def adopt_one(self, path, contents, sent):
        parts, keeps = tuple(path.split("/")), self.mount.bucket.keeps_lost
        parent = self.model.root
        puts = [content for content in contents if content is not None]
        if not keeps:
            puts = puts[-1:] if contents[-1] is not None else []
        node = self.model.walk(parts)
        unsent = [version for version in node.versions[sent.get(node, 0):]] if node else []
        if unsent and contents[-1] is None:  # ours brings it back, and stays the newest
            for n, content in enumerate(puts):
                node.versions.insert(len(node.versions) - 1, Version(unsent[-1].step - 0.5 + n / 1000, content))
            return
        for version in unsent:  # the further names of a file have no content at their keys to be in conflict with
            if version.step > self.moved:  # an earlier one may be on its way to where the file was before
                version.conflict = self.model.links()[node][0][1] == path
        if node:
            self.model.tick()
            self.model.release(self.model.walk(parts[:-1]), parts[-1])
        if not puts:
            return
        for name in parts[:-1]:
            if name not in parent.names:
                self.model.tick()
                self.model.make_directory(parent, name)
            parent = parent.names[name]
        self.model.tick()
        made = self.new_file(parent, parts[-1])
        for content in puts:
            made.write(self.model.tick(), content)
        if contents[-1] is None:
            self.model.tick()
            self.model.release(parent, parts[-1])

    def do_expire(self, choice):
        """Others delete a version that is no file now, wherever it lies."""
        bucket = self.mount.bucket
        if not bucket or not bucket.keeps_lost:
            return
        self.mount.drain()
        current = {version.etag for version in self.model.tree().values() if not isinstance(version, str)}
        shown_at = {}
        for path, node in self.directories():
            for name in node.past:
                for version in self.model.history(node, name):
                    if not isinstance(version, str) and version.etag not in current:
                        shown_at[version] = self.path((*path, ".versions", name))
        found = {}
        for version in (version for node in self.nodes for version in node.versions if not version.lost):
            found.setdefault(version.etag, []).append(version)
        etags = sorted(etag for etag, versions in found.items()
                       if all(version in shown_at for version in versions) and etag != EMPTY)
        if not etags:
            return
        etag = etags[choice % len(etags)]
        for key, version, other in bucket.all_versions():
            if other == etag:
                bucket.delete(key, version)
        for version in found[etag]:
            self.expire_hidden(shown_at[version], version.shown)
            version.lost = True
        self.mount.sweep()

    def expire_hidden(self, history, content):
        """Copies that the listing hides are deleted one after the other, as the mount turns to them."""
        for _ in range(20):
            self.mount.sweep()
            left = [entry for entry in sorted(os.listdir(history)) if
                    shown(os.path.join(history, entry)) == content]
            if not left:
                return
            facts = [os.getxattr(os.path.join(history, left[0]), "user.varve." + name).decode()
                     for name in ("key", "version_id")]
            self.mount.bucket.delete(*facts)
        raise Mismatch(f"{content} is still in {history}")

    def objects(self):
        dirs = {"/".join(path) + "/" for path, _ in self.directories() if path}
        return self.mount.bucket.objects(dirs | self.model.tree().keys())

    def compare_store(self):
        expected = {}
        for node, names in self.model.links().items():
            held = node.target.encode() if node.kind == "symlink" else None
            etag = hashlib.md5(held).hexdigest() if held is not None else node.versions[-1].etag
            for n, (_, path) in enumerate(names):
                expected[path] = etag if n == 0 or held is not None else EMPTY
        objects = self.objects()
        for path, _ in self.directories():
            key = "/".join(path) + "/"
            if path and not any(other.startswith(key) for other in objects):
                raise Mismatch(f"the store has nothing of {key}")
            objects.pop(key, None)
        if expected != objects:
            raise Mismatch("objects: " + different(expected, objects))

    # ---- comparing

    def directories(self, node=None, path=()):
        yield path, node or self.model.root
        for name, child in (node or self.model.root).names.items():
            if child.kind == "dir":
                yield from self.directories(child, (*path, name))

    def version_names(self):
        return {"/".join((*path, name)): tuple(sorted(os.listdir(self.path((*path, ".versions", name)))))
                for path, node in self.directories() for name in node.past}

    def compare_live(self):
        expected, found = seen(self.model.tree()), tree_of(self.mount.dir)
        if expected != found:
            raise Mismatch("live tree: " + different(expected, found))

    def compare_history(self, path, node, name):
        top = self.path((*path, ".versions", name))
        history = self.model.history(node, name)
        expected = [what if isinstance(what, str) else what.shown for what in history]
        entries = sorted(os.listdir(top))
        found = [shown(os.path.join(top, entry)) for entry in entries]
        if expected != found:
            raise Mismatch(f"history of {'/'.join((*path, name))}: {expected} expected, {found} found")
        for what, entry in zip(history, entries):
            if isinstance(what, Version) and what.conflict:
                origin = os.getxattr(os.path.join(top, entry), "user.varve.origin").decode()
                if origin != "conflict":
                    raise Mismatch(f"{'/'.join((*path, name))}/{entry}: origin {origin}, not conflict")

    def compare_instant(self, ns, tree):
        seconds, rest = divmod(ns, 10**9)
        text = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        found, expected = tree_of(self.path((".versions", "+at", f"{text}.{rest:09}Z"))), seen(tree)
        if expected != found:
            raise Mismatch(f"+at/{text}.{rest:09}Z: " + different(expected, found))

    def compare_some(self, names=6, instants=1):
        self.compare_live()
        every = [(path, node, name) for path, node in self.directories() for name in node.past]
        for path, node, name in self.dice.sample(every, min(names, len(every))):
            self.compare_history(path, node, name)
        for instant in self.dice.sample(self.instants, min(instants, len(self.instants))):
            self.compare_instant(*instant)

    def compare_everything(self):
        self.compare_live()
        for path, node in self.directories():
            for name in node.past:
                self.compare_history(path, node, name)
        for instant in self.instants:
            self.compare_instant(*instant)


# ---- running and shrinking ---------------------------------------------------------------------------------------


def make_ops(dice, count):
    def path(short=False):
        return tuple(dice.choice(NAMES) for _ in range(dice.randint(1, DEPTH - 1 if short else DEPTH)))

    def content():
        return f"{dice.getrandbits(64):x}" * dice.choice((1, 1, 1, 50))

    def at_others():
        """Mostly two of a few paths each time, so that they meet."""
        paths = [path() for _ in range(3)]
        local = {
            "write": (5, lambda: (dice.choice(paths), content(), dice.choice(MODES))),
            "copy": (2, lambda: (dice.choice(paths), dice.choice(paths))),
            "truncate": (1, lambda: (dice.choice(paths), 3)),
            "unlink": (2, lambda: (dice.choice(paths),)),
            "rename": (2, lambda: (dice.choice(paths), dice.choice(paths))),
            "link": (1, lambda: (dice.choice(paths), dice.choice(paths))),
        }
        ours = [choose(local) for _ in range(dice.randint(1, 4))]
        theirs = [(dice.choice(paths), content() if dice.random() < 0.7 else None) for _ in range(dice.randint(1, 3))]
        return dice.choices(("idle", "unmounted", "unsent"), (3, 1, 4))[0], ours, theirs

    def choose(kinds):
        kind = dice.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        return (kind, *kinds[kind][1]())

    kinds = {
        "write": (40, lambda: (path(), content(), dice.choice(MODES))),
        "copy": (8, lambda: (path(), path())),
        "truncate": (4, lambda: (path(), dice.choice((0, 3, 500)))),
        "mkdir": (12, lambda: (path(short=True),)),
        "symlink": (2, lambda: (path(), dice.choice(("a", "nowhere", "../b")))),
        "link": (4, lambda: (path(), path())),
        "unlink": (14, lambda: (path(),)),
        "rmtree": (2, lambda: (path(short=True),)),
        "rename": (20, lambda: (path(), path())),
        "remount": (0.12, lambda: ()),
        "kill": (0.12, lambda: ()),
        "lose_catalog": (0.06, lambda: ()),
        "others": (0.6, at_others),
        "expire": (0.1, lambda: (dice.getrandbits(16),)),
    }
    for _ in range(count):
        yield choose(kinds)


def run(store, ops, every, tell=False, keep=False):
    """None, or (operations done, what is wrong). `keep`: what went wrong is left mounted."""
    work, done = Run(store), 0
    try:
        work.mount.start()
        work.compare_live()
        for op in ops:
            done += 1
            begun = time.monotonic()
            work.operate(op)
            if time.monotonic() - begun > SLOW_SECONDS:
                print(f"{time.monotonic() - begun:.1f} s, operation {done}: {op[0]}", flush=True)
            work.remember()
            if done % every == 0:
                work.compare_some()
            if tell and done % 1000 == 0:
                print(f"{done} operations", flush=True)
        work.compare_everything()
        work.do_lose_catalog()
        work.mount.stop()
        work.mount.check()
        keep = False
        return None
    except (Mismatch, OSError, SystemExit) as wrong:
        said = work.mount.log.read_text(errors="replace").splitlines()[-5:]
        return done, "\n    ".join([f"{type(wrong).__name__}: {wrong}", f"in {ops[done - 1]}", *said])
    finally:
        if not keep:
            work.mount.clean()


def shrink(store, ops, deadline):
    """Fewer operations that still go wrong."""
    size = max(1, len(ops) // 2)
    while size and time.monotonic() < deadline:
        at, smaller = 0, False
        while at < len(ops) and time.monotonic() < deadline:
            rest = ops[:at] + ops[at + size:]
            failure = run(store, rest, 1) if rest else None
            if failure:
                ops, smaller = rest[:failure[0]], True
            else:
                at += size
        size = size // 2 if not smaller or size > 1 else size
        if size == 1 and not smaller:
            break
    return ops


def tuples(saved):
    """Operations as they were before JSON made lists of them."""
    return tuple(tuples(part) for part in saved) if isinstance(saved, list) else saved


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--store", choices=("file", "s3", "s3-unversioned"), default="file")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--ops", type=int, default=1000)
    parser.add_argument("--every", type=int, default=40, help="operations between comparisons")
    parser.add_argument("--replay")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave mounted what went wrong")
    options = parser.parse_args()
    os.environ["VARVE_TEST_REFER_LEAST"] = "0"
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    if options.replay:
        saved = json.loads(Path(options.replay).read_text())
        options.store = saved["store"]
        ops = [tuples(op) for op in saved["ops"]]
        options.every = 1
    else:
        ops = list(make_ops(random.Random(seed), options.ops))
    begun = time.monotonic()
    failure = run(options.store, ops, options.every, tell=options.ops >= 5000, keep=options.keep)
    if not failure:
        print(f"model: {len(ops)} operations on {options.store}, seed {seed}: clean, {time.monotonic() - begun:.0f} s")
        return 0
    print(f"model: seed {seed} on {options.store}, after {failure[0]} operations: {failure[1]}", flush=True)
    if not options.replay and not options.no_shrink:
        ops = shrink(options.store, ops[:failure[0]], time.monotonic() + SHRINK_SECONDS)
        path = Path(os.environ.get("TMPDIR") or "/tmp") / f"model-{seed}.json"
        path.write_text(json.dumps({"store": options.store, "ops": ops}))
        again = run(options.store, ops, 1)
        print(f"shrunk to {len(ops)} operations in {path}: {again[1] if again else 'not every time'}")
        for op in ops[:40]:
            print("   ", *(str(part)[:40] for part in op))
    return 1


if __name__ == "__main__":
    sys.exit(main())
