"""The floor: the requests that a piece of work cannot do without, sent by bare HTTP.

Each plan is a list of signed requests for tools/bench/http_plan.c, which sends them over kept-alive connections and
takes the time. Signing is done beforehand, for nothing. Where more than one plan would do, the floor is the fastest.

A plan is one that loses nothing: an object is put only where none is, is sent with its checksum and tells its file's
metadata, and before something is removed or copied over, it is asked whose it is: MinIO knows no condition for either.

A minimal S3 client lies here as well: it shares nothing with varve and looks into buckets for bench.py.
"""

import base64
import concurrent.futures
import datetime
import hashlib
import hmac
import html
import http.client
import subprocess
import tempfile
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree

KIB, MIB = 1 << 10, 1 << 20
PART_LEAST = 5 * MIB
REGION = "us-east-1"
NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
MANY, FEW = 16, 8  # connections for small objects, for large ones
# What varve says of a file with its content, by size.
META = [(f"x-amz-meta-{name}", value) for name, value in {
    "mode": "33188", "uid": "0", "gid": "0", "mtime": "1795323613.847239879", "varve-id": "e4" * 16,
    "varve-seq": "281474976710704", "varve-commit": "1795323613847352871", "varve-origin": "close", "varve-epoch": "1",
    "varve-crc32c": "b24e8724", "varve-author": "0", "varve-host": "bench",
    "varve-upload": "e4" * 16 + "-281474976710704-1"}.items()]
NOBODY = ("If-None-Match", "*")


def quote(text):
    return urllib.parse.quote(text, safe="-_.~")


class Store:
    """One S3 store."""

    def __init__(self, endpoint, access, secret):
        parts = urllib.parse.urlsplit(endpoint)
        self.host, self.port, self.netloc = parts.hostname, parts.port, parts.netloc
        self.access, self.secret = access, secret

    def target(self, method, path, query=(), headers=()):
        """The presigned target of a request; headers named x-amz-* must be given, as they are signed."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        signed = {"host": self.netloc, **{name.lower(): value for name, value in headers}}
        names = ";".join(sorted(signed))
        query = list(query) + [("X-Amz-Algorithm", "AWS4-HMAC-SHA256"), ("X-Amz-Credential", f"{self.access}/{scope}"),
                               ("X-Amz-Date", now), ("X-Amz-Expires", "3600"), ("X-Amz-SignedHeaders", names)]
        query = "&".join(sorted(f"{quote(name)}={quote(value)}" for name, value in query))
        path = urllib.parse.quote(path, safe="/-_.~")
        canonical = "\n".join([method, path, query, *(f"{name}:{signed[name]}" for name in sorted(signed)), "", names,
                               "UNSIGNED-PAYLOAD"])
        key = ("AWS4" + self.secret).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        return f"{path}?{query}&X-Amz-Signature={hmac.new(key, text.encode(), hashlib.sha256).hexdigest()}"

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=120)

    def ask(self, method, path, query=(), body=b"", headers=(), connection=None):
        """The reply's body; RuntimeError when the store refuses."""
        connection = connection or self.connect()
        signed = [(name, value) for name, value in headers if name.lower().startswith("x-amz-")]
        connection.request(method, self.target(method, path, query, signed), body, dict(headers))
        reply = connection.getresponse()
        answer = reply.read()
        if reply.status >= 300:
            raise RuntimeError(f"{method} {path}: {reply.status} {answer.decode(errors='replace')[:300]}")
        return answer

    # ---- buckets

    def make_bucket(self, bucket, versioned):
        try:
            self.ask("PUT", f"/{bucket}")
        except RuntimeError as error:
            if "BucketAlreadyOwnedByYou" not in str(error):
                raise
        if versioned:
            self.ask("PUT", f"/{bucket}", [("versioning", "")],
                     b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")

    def remove_bucket(self, bucket):
        """MinIO's own way of forgetting a bucket with all that is in it."""
        try:
            self.ask("DELETE", f"/{bucket}", headers=[("x-minio-force-delete", "true")])
        except RuntimeError as error:
            if "NoSuchBucket" not in str(error):
                raise

    def list(self, bucket):
        """{key: size} of the current objects."""
        token, found, connection = None, {}, self.connect()
        while True:
            query = [("list-type", "2")] + ([("continuation-token", token)] if token else [])
            root = ElementTree.fromstring(self.ask("GET", f"/{bucket}", query, connection=connection))
            for element in root.iter(NAMESPACE + "Contents"):
                found[element.findtext(NAMESPACE + "Key")] = int(element.findtext(NAMESPACE + "Size"))
            token = root.findtext(NAMESPACE + "NextContinuationToken")
            if not token:
                return found

    def get(self, bucket, key, start=None, size=None):
        headers = [] if start is None else [("Range", f"bytes={start}-{start + size - 1}")]
        return self.ask("GET", f"/{bucket}/{key}", headers=headers)

    def digest(self, bucket, key):
        """SHA-256 of an object's bytes."""
        connection, digest = self.connect(), hashlib.sha256()
        connection.request("GET", self.target("GET", f"/{bucket}/{key}"))
        reply = connection.getresponse()
        while block := reply.read(4 * MIB):
            digest.update(block)
        return digest.hexdigest() if reply.status == 200 else None

    def fill(self, bucket, objects, connections=FEW):
        """Puts {key: bytes}."""
        def put(item):
            self.ask("PUT", f"/{bucket}/{item[0]}", body=item[1])
        with concurrent.futures.ThreadPoolExecutor(connections) as pool:
            list(pool.map(put, objects.items()))


class Floor:
    """The plans. Every method gives seconds. What reads begins cold: `cold` drops the server's caches. What is kept is kept
    in `dir`."""

    def __init__(self, store, program, bucket, cold, dir):
        self.store, self.program, self.bucket, self.cold, self.dir = store, program, bucket, cold, dir
        self.checksums = {}

    def checksum(self, size):
        """The header that tells the CRC-32C of a body of so many bytes."""
        if size not in self.checksums:
            done = subprocess.run([self.program, "crc32c", str(size)], capture_output=True, text=True, check=True)
            self.checksums[size] = base64.b64encode(bytes.fromhex(done.stdout.strip())).decode()
        return ("x-amz-checksum-crc32c", self.checksums[size])

    def request(self, method, key, size=0, query=(), headers=()):
        signed = [(name, value) for name, value in headers if name.lower().startswith("x-amz-")]
        target = self.store.target(method, f"/{self.bucket}/{key}", query, signed)
        return "\t".join([method, target, str(size)] + [f"{name}: {value}" for name, value in headers])

    def send(self, requests, connections, *kept):
        """(seconds, [etag]); in the file `kept` what ranges hold is kept and read."""
        words = [self.program, self.store.host, str(self.store.port), str(min(connections, len(requests))), *kept]
        done = subprocess.run(words, input="\n".join(requests) + "\n", capture_output=True, text=True, timeout=300,
                              check=False)
        if done.returncode != 0:
            raise RuntimeError(f"http_plan: {done.returncode} {done.stderr.strip()} {done.stdout[:200]}")
        seconds, *replies = done.stdout.splitlines()
        return float(seconds), [html.unescape(reply.split(" ", 1)[1]).strip('"') for reply in replies]

    def get_range(self, key, start, size):
        return self.request("GET", key, headers=[("Range", f"bytes={start}-{start + size - 1}")])

    # ---- small objects

    def put(self, key, size, *headers):
        return self.request("PUT", key, size, headers=[self.checksum(size), *headers, *META])

    def remove(self, key):
        return [self.request("HEAD", key), self.request("DELETE", key)]

    def copy(self, old, new):
        source = [("x-amz-copy-source", f"/{self.bucket}/{old}"), ("x-amz-metadata-directive", "REPLACE")]
        return [self.request("HEAD", new), self.request("PUT", new, headers=source + META)]

    def put_all(self, sizes, connections=MANY):
        return self.send([self.put(key, size, NOBODY) for key, size in sizes.items()], connections)[0]

    def get_all(self, keys, connections=MANY):
        self.cold()
        return self.send([self.request("GET", key) for key in keys], connections)[0]

    def delete_all(self, keys):
        return self.send([request for key in keys for request in self.remove(key)], MANY)[0]

    def rename_all(self, pairs):
        copies = [request for old, new in pairs for request in self.copy(old, new)]
        return self.send(copies, MANY)[0] + self.delete_all([old for old, _ in pairs])

    def sqlite(self, transactions, size):
        """A transaction in DELETE mode syncs the journal, the journal's header, the database, and unlinks the journal:
        each must be in the store before the next may begin."""
        requests = []
        for _ in range(transactions):
            requests += [self.put("db-journal", 8 * KIB)] * 2
            requests += [self.put("db", size), *self.remove("db-journal")]
        return self.send(requests, 1)[0]

    # ---- one large object

    def multipart(self, key, parts, connections=FEW):
        """parts: (offset, size, whether the store copies it from the object as it was). With checksums, unless some are
        copied, whose checksum nobody knows."""
        path, connection = f"/{self.bucket}/{key}", self.store.connect()
        checked = not any(copied for _, _, copied in parts)
        sums = [self.checksum(size) for _, size, _ in parts] if checked else []
        began = time.monotonic()
        answer = self.store.ask("POST", path, [("uploads", "")], connection=connection,
                                headers=META + ([("x-amz-checksum-algorithm", "CRC32C")] if checked else []))
        seconds = time.monotonic() - began
        upload = ElementTree.fromstring(answer).findtext(NAMESPACE + "UploadId")
        requests = []
        for number, (offset, size, copied) in enumerate(parts, 1):
            query = [("partNumber", str(number)), ("uploadId", upload)]
            source = [("x-amz-copy-source", path), ("x-amz-copy-source-range", f"bytes={offset}-{offset + size - 1}")]
            headers = source if copied else [sums[number - 1]] if checked else []
            requests.append(self.request("PUT", key, 0 if copied else size, query, headers))
        took, etags = self.send(requests, connections)
        body = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag>" +
                       (f"<ChecksumCRC32C>{sums[number - 1][1]}</ChecksumCRC32C>" if checked else "") + "</Part>"
                       for number, etag in enumerate(etags, 1))
        began = time.monotonic()
        self.store.ask("POST", path, [("uploadId", upload)],
                       f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>".encode(), connection=connection)
        return seconds + took + time.monotonic() - began

    def put_large(self, key, size):
        return min(self.multipart(key, [(at, min(step, size - at), False) for at in range(0, size, step)])
                   for step in (8 * MIB, 16 * MIB, 32 * MIB))

    def get_ranges(self, key, ranges, connections, *kept):
        """ranges: (offset, size)"""
        self.cold()
        return self.send([self.get_range(key, *found) for found in ranges], connections, *kept)[0]

    def get_large(self, key, size, *kept):
        return min(self.get_ranges(key, [(at, min(step, size - at)) for at in range(0, size, step)], FEW, *kept)
                   for step in (8 * MIB, 16 * MIB))

    def keep_large(self, key, size):
        """The same by whoever keeps it in a file, from which it is read as it comes."""
        with tempfile.NamedTemporaryFile(dir=self.dir) as kept:
            return self.get_large(key, size, kept.name)

    def random_reads(self, key, size, offsets):
        """One reader, who needs each before it asks for the next; or the whole object at once."""
        return min(self.get_ranges(key, [(at, 4096) for at in offsets], 1), self.get_large(key, size))

    def patch(self, key, size, offsets):
        """The parts with a changed block are fetched and sent, the stretches between are copied by the store; or all of
        it is fetched and sent."""
        best = self.get_large(key, size) + self.put_large(key + ".whole", size)
        for step in (PART_LEAST, 8 * MIB, 16 * MIB):
            dirty = {offset // step for offset in offsets}
            fetched = [(n * step, min(step, size - n * step)) for n in sorted(dirty)]
            parts = []
            for n in range(-(-size // step)):
                length = min(step, size - n * step)
                if n not in dirty and parts and parts[-1][2]:
                    parts[-1] = (parts[-1][0], parts[-1][1] + length, True)
                else:
                    parts.append((n * step, length, n not in dirty))
            best = min(best, self.get_ranges(key, fetched, FEW) + self.multipart(key, parts))
        return best

    def append(self, key, size, more):
        """The store copies what was, whole or in stretches; what is new is the last part. An object too small to be the
        first part is sent whole."""
        if size < PART_LEAST:
            return self.send([self.put(key, size + more)], 1)[0]
        best = None
        for count in (1, 4, 8):
            step = max(PART_LEAST, -(-size // count))
            parts = [(at, min(step, size - at), True) for at in range(0, size, step)]
            if len(parts) > 1 and parts[-1][1] < PART_LEAST:
                last = parts.pop()
                parts[-1] = (parts[-1][0], parts[-1][1] + last[1], True)
            took = self.multipart(key, parts + [(size, more, False)])
            best = took if best is None else min(best, took)
            size += more
        return best
