#!/usr/bin/env python3
"""Random work on a varve mount against a model of names and versions, through remounts, kills and the loss of the catalog.

    model.py [--store file|s3|s3-unversioned] [--seed N] [--ops N] [--replay FILE]

The model derives from the definition, without any thought of speed: a name is a row of intervals in which a node held
it, a file a row of versions; history(name) is, for each interval, the file's versions current in it, and a pure rename
to a free name brings the old name's history before it; a directory removed and made again goes on with the past it had;
+at/T is the tree as it was. Compared are the live tree, the
contents behind every entry of .versions in their order, +at of past instants, and over the loss of the catalog the
names of all versions.

A failure prints its seed, is shrunk to few operations by running parts of them anew, and leaves these in
$TMPDIR/model-SEED.json for --replay. Environment: VARVE, TMPDIR; for S3 VARVE_TEST_S3_ENDPOINT and AWS_*.
"""

import argparse
import datetime
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VARVE = os.environ.get("VARVE") or str(HERE.parent.parent / "build" / "varve")
NAMES = ("a", "b", "c.txt", "d", "e")
DEPTH = 3
INSTANTS = 60  # past trees kept for comparing
READY_SECONDS = 60
DRAIN_SECONDS = 120
SHRINK_SECONDS = 120


class Mismatch(Exception):
    """The mount and the model disagree."""


# ---- the model ------------------------------------------------------------------------------------------------


class Node:
    """A file, directory or symlink. Files: versions [(step, content)]; directories: names and what these held."""

    def __init__(self, kind, target=""):
        self.kind = kind
        self.target = target
        self.links = 0
        self.versions = []
        self.names = {}  # live: name -> Node
        self.past = {}  # name -> [Interval], the live one last


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
        """Contents, in the order of .versions."""
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
                before = [version for version in interval.node.versions if version[0] <= interval.since]
                if before and not brought:
                    entries.append((interval.since, before[-1][1]))
                for step, content in interval.node.versions:
                    if step > interval.since and (interval.until is None or step < interval.until):
                        entries.append((step, content))
        return [content for _, content in sorted(entries, key=lambda entry: entry[0])]

    def tree(self, node=None, path=()):
        """{path: content} with "/" for directories."""
        found = {}
        for name, child in (node or self.root).names.items():
            if child.kind == "dir":
                found["/".join((*path, name))] = "/"
                found.update(self.tree(child, (*path, name)))
            elif child.kind == "symlink":
                found["/".join((*path, name))] = "-> " + child.target
            else:
                found["/".join((*path, name))] = child.versions[-1][1]
        return found


# ---- the mount ------------------------------------------------------------------------------------------------


class Mount:
    def __init__(self, store, options=""):
        self.top = Path(tempfile.mkdtemp(prefix="model-", dir=os.environ.get("TMPDIR")))
        self.dir, self.state, self.log = self.top / "mnt", self.top / "state", self.top / "log"
        self.dir.mkdir()
        self.daemon = None
        self.options = [f"state={self.state}", "create"] + ([options] if options else [])
        if store == "file":
            self.url = f"file://{self.top}/store"
        else:
            bucket = f"m{os.getpid()}-{time.time_ns():x}"
            self.url = f"s3://{bucket}"
            self.options.append("endpoint=" + os.environ["VARVE_TEST_S3_ENDPOINT"])
            if store == "s3-unversioned":
                subprocess.run([sys.executable, HERE.parent / "support" / "s3.py", bucket, "make"], check=True)

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
        subprocess.run(["umount", "-l", str(self.dir)], check=False, stderr=subprocess.DEVNULL)

    def check(self):
        done = subprocess.run([VARVE, "fsck", str(self.state)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Mismatch("fsck: " + done.stdout + done.stderr)

    def forget(self):
        shutil.rmtree(self.state)

    def clean(self):
        if self.daemon and self.daemon.poll() is None:
            self.kill()
        shutil.rmtree(self.top, ignore_errors=True)


def digest(content):
    return f"{len(content)}:{hashlib.sha256(content).hexdigest()[:12]}"


def shown(path):
    """What a path of the mount holds, in the words of the model."""
    if os.path.islink(path):
        return "-> " + os.readlink(path)
    with open(path, "rb") as file:
        return digest(file.read())


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
        self.dice = random.Random(1)  # for what is compared, never for what is done
        self.last_ns = 0

    def path(self, parts):
        return os.path.join(self.mount.dir, *parts)

    def settle(self, parts):
        """The kernel releases a closed file when it likes; a listing of its history makes the version now."""
        os.listdir(self.path((*parts[:-1], ".versions", parts[-1])))

    def remember(self):
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

    def do_write(self, parts, content, mode):
        parent, name, node = self.target(parts)
        if not parent or (node and node.kind != "file"):
            return
        data = content.encode() * (1 + len(content) % 7)
        step = self.model.tick()
        if not node:
            node = Node("file")
            self.model.bind(parent, name, node)
            step = self.model.tick()
        with open(self.path(parts), {"new": "wb", "append": "ab", "patch": "r+b"}[mode]
                  if node.versions or mode != "patch" else "wb") as file:
            old = getattr(node, "bytes", b"")
            if mode == "patch" and node.versions:
                at = len(old) // 2
                file.seek(at)
                node.bytes = old[:at] + data + old[at + len(data):]
            else:
                node.bytes = old + data if mode == "append" else data
            file.write(data)
        node.versions.append((step, digest(node.bytes)))
        self.settle(parts)

    def do_truncate(self, parts, size):
        parent, _, node = self.target(parts)
        if not parent or not node or node.kind != "file" or size == len(node.bytes):
            return
        os.truncate(self.path(parts), size)
        node.bytes = (node.bytes + bytes(max(0, size - len(node.bytes))))[:size]
        node.versions.append((self.model.tick(), digest(node.bytes)))

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
        self.compare_everything()

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
        expected, found = self.model.tree(), tree_of(self.mount.dir)
        if expected != found:
            raise Mismatch("live tree: " + different(expected, found))

    def compare_history(self, path, node, name):
        top = self.path((*path, ".versions", name))
        expected = self.model.history(node, name)
        found = [shown(os.path.join(top, entry)) for entry in sorted(os.listdir(top))]
        if expected != found:
            raise Mismatch(f"history of {'/'.join((*path, name))}: {expected} expected, {found} found")

    def compare_instant(self, ns, expected):
        seconds, rest = divmod(ns, 10**9)
        text = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        found = tree_of(self.path((".versions", "+at", f"{text}.{rest:09}Z")))
        if expected != found:
            raise Mismatch(f"+at/{text}.{rest:09}Z: " + different(expected, found))

    def compare_some(self):
        self.compare_live()
        names = [(path, node, name) for path, node in self.directories() for name in node.past]
        for path, node, name in self.dice.sample(names, min(6, len(names))):
            self.compare_history(path, node, name)
        if self.instants:
            self.compare_instant(*self.dice.choice(self.instants))

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

    kinds = {
        "write": (40, lambda: (path(), content(), dice.choice(("new", "new", "append", "patch")))),
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
    }
    for _ in range(count):
        kind = dice.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        yield (kind, *kinds[kind][1]())


def run(store, ops, every, tell=False):
    """None, or (operations done, what is wrong)."""
    work, done = Run(store), 0
    try:
        work.mount.start()
        for op in ops:
            done += 1
            work.operate(op)
            work.remember()
            if done % every == 0:
                work.compare_some()
            if tell and done % 1000 == 0:
                print(f"{done} operations", flush=True)
        work.compare_everything()
        work.do_lose_catalog()
        work.mount.stop()
        work.mount.check()
        return None
    except (Mismatch, OSError) as wrong:
        said = work.mount.log.read_text(errors="replace").splitlines()[-5:]
        return done, "\n    ".join([f"{type(wrong).__name__}: {wrong}", *said])
    finally:
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--store", choices=("file", "s3", "s3-unversioned"), default="file")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--ops", type=int, default=1000)
    parser.add_argument("--every", type=int, default=40, help="operations between comparisons")
    parser.add_argument("--replay")
    parser.add_argument("--no-shrink", action="store_true")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    if options.replay:
        saved = json.loads(Path(options.replay).read_text())
        options.store = saved["store"]
        ops = [tuple(tuple(arg) if isinstance(arg, list) else arg for arg in op) for op in saved["ops"]]
        options.every = 1
    else:
        ops = list(make_ops(random.Random(seed), options.ops))
    begun = time.monotonic()
    failure = run(options.store, ops, options.every, tell=options.ops >= 5000)
    if not failure:
        print(f"model: {len(ops)} operations on {options.store}, seed {seed}: clean, {time.monotonic() - begun:.0f} s")
        return 0
    print(f"model: seed {seed} on {options.store}, after {failure[0]} operations: {failure[1]}", flush=True)
    if not options.replay and not options.no_shrink:
        ops = shrink(options.store, ops[:failure[0]], time.monotonic() + SHRINK_SECONDS)
        path = Path(os.environ.get("TMPDIR") or ".") / f"model-{seed}.json"
        path.write_text(json.dumps({"store": options.store, "ops": ops}))
        again = run(options.store, ops, 1)
        print(f"shrunk to {len(ops)} operations in {path}: {again[1] if again else 'not every time'}")
        for op in ops[:40]:
            print("   ", *(str(part)[:40] for part in op))
    return 1


if __name__ == "__main__":
    sys.exit(main())
