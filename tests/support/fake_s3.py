#!/usr/bin/env python3
"""An S3 server in memory that takes any key and lies when told to.

    fake_s3.py FILE     listens on a free port of the loopback and writes "http://127.0.0.1:PORT" into FILE

One versioned bucket of any name, no signatures checked, no multipart. Real stores refuse keys such as "../x" or "a//b"
or "a" beside "a/b"; a bucket may hold them all the same, so this one takes them.

    POST /-/lie?KIND&KEY    from now on lies about objects of this key, or for listings about every listing
    POST /-/truth           stops that
    POST /-/conditions?HOW  of If-Match and If-None-Match on PUT: honoured (as at first), ignored, refused (501), busy (503)
    POST /-/fill?PREFIX&N   makes N small objects, PREFIX0 and so on

About content: flip (one bit), cut (closes the connection before the end), short (a smaller Content-Length and as many
bytes), long (more bytes than asked for), other-range (the bytes before those asked for, and says so), whole (200 and
everything instead of a range), other-object (the same length from elsewhere under another ETag), empty (200 and nothing).
About listings: malformed, unfinished, dtd, entity, same-token, no-progress (empty pages, each with a new token),
repeated (the same keys with ever new tokens), endless (a body without end), other-prefix (keys not asked for), deep.
"""

import email.utils
import hashlib
import itertools
import os
import sys
import threading
import time
import urllib.parse
import xml.sax.saxutils
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n'
ENDLESS_LIMIT = 4 << 30  # even this server ends


class Version:
    def __init__(self, number, body, meta):
        self.id = f"{number:08d}"
        self.body = body  # None: a delete marker
        self.meta = meta
        self.etag = hashlib.md5(body or b"").hexdigest()
        self.time = time.time()


class Store:
    def __init__(self):
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.objects = {}  # key bytes -> [Version], oldest first
        self.lie = ("", b"")
        self.conditions = "honoured"

    def find(self, key, version_id):
        versions = self.objects.get(key, [])
        if version_id:
            return next((version for version in versions if version.id == version_id), None)
        return versions[-1] if versions else None

    def add(self, key, body, meta):
        version = Version(next(self.numbers), body, meta)
        self.objects.setdefault(key, []).append(version)
        return version

    def erase(self, key, version_id):
        self.objects[key] = [version for version in self.objects.get(key, []) if version.id != version_id]
        if not self.objects[key]:
            del self.objects[key]


STORE = Store()


def quoted(key):
    return urllib.parse.quote(key, safe="/-_.~")


def element(name, text):
    return f"<{name}>{xml.sax.saxutils.escape(text)}</{name}>"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code):
        self.reply(status, HEAD + f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def handle_one(self):
        path, _, text = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True, errors="surrogateescape"))
        body = self.body()
        if path.startswith("/-/"):
            with STORE.lock:
                self.told(path[3:], *text.partition("&")[::2])
            self.reply(204)
            return
        _, _, key = path[1:].partition("/")
        key = urllib.parse.unquote_to_bytes(key)
        with STORE.lock:  # not while sending without end
            action = self.bucket if not key else getattr(self, self.command.lower() + "_object", None)
            self.later = None
            if action:
                action(key, query, body)
            else:
                self.refuse(501, "NotImplemented")
        if self.later:
            self.later()

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = handle_one

    @staticmethod
    def told(verb, first, second):
        if verb == "fill":
            for number in range(int(second)):
                STORE.add(f"{first}{number}".encode(), f"{number}\n".encode(), {})
        elif verb == "conditions":
            STORE.conditions = first
        else:
            STORE.lie = (first, urllib.parse.unquote_to_bytes(second)) if verb == "lie" else ("", b"")

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    # ---- the bucket

    def bucket(self, _key, query, _body):
        if self.command == "PUT":
            self.reply(200)
        elif "versioning" in query:
            self.reply(200, HEAD + b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
        elif "versions" in query:
            self.listing(query, "ListVersionsResult")
        elif "list-type" in query:
            self.listing(query, "ListBucketResult")
        else:
            self.refuse(501, "NotImplemented")

    def rows(self, root, prefix, delimiter):
        """(sort key, xml) of what a listing shows."""
        for key, versions in sorted(STORE.objects.items()):
            if not key.startswith(prefix):
                continue
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if root == "ListBucketResult" and versions[-1].body is None:
                continue
            if end >= 0:
                common = key[:end + len(delimiter)]
                yield common, "<CommonPrefixes>" + element("Prefix", quoted(common)) + "</CommonPrefixes>"
                continue
            for age, version in enumerate(reversed(versions) if root == "ListVersionsResult" else versions[-1:]):
                yield key + b"\0%08d" % age, self.row(root, key, version, version is versions[-1])

    @staticmethod
    def row(root, key, version, latest):
        tag = "DeleteMarker" if version.body is None else "Version" if root == "ListVersionsResult" else "Contents"
        text = element("Key", quoted(key)) + element("LastModified", time.strftime(
            "%Y-%m-%dT%H:%M:%S", time.gmtime(version.time)) + f".{int(version.time * 1000) % 1000:03d}Z")
        if root == "ListVersionsResult":
            text += element("VersionId", version.id) + element("IsLatest", str(latest).lower())
        if version.body is not None:
            text += element("ETag", f'"{version.etag}"') + element("Size", str(len(version.body)))
            text += element("StorageClass", "STANDARD")
        return f"<{tag}>{text}</{tag}>"

    def listing(self, query, root):
        prefix = query.get("prefix", "").encode(errors="surrogateescape")
        if prefix.startswith(b".varve"):
            lie = ""
        else:
            lie = STORE.lie[0]
        rows, last, cut = [], None, False
        after = urllib.parse.unquote_to_bytes(query.get("continuation-token") or query.get("version-id-marker") or "")
        for position, text in self.rows(root, prefix, query.get("delimiter", "").encode()):
            if position == last or position <= after:
                continue
            if len(rows) == min(int(query.get("max-keys") or 1000), 1000):
                cut = True
                break
            rows.append(text)
            last = position
        text = "".join([element("Prefix", quoted(prefix)), element("EncodingType", "url"), element("KeyCount", str(len(rows))),
                        element("MaxKeys", "1000"), *rows])
        open_root, close_root = f'<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">', f"</{root}>"
        fresh = f"token{next(STORE.numbers)}"
        more = {"same-token": "always", "no-progress": fresh, "repeated": fresh}.get(lie, quoted(last) if cut else None)
        if root == "ListVersionsResult" and more:
            more = element("NextKeyMarker", more) + element("NextVersionIdMarker", more)
        elif more:
            more = element("NextContinuationToken", more)
        if lie == "no-progress":
            text = element("Prefix", quoted(prefix))
        elif lie == "other-prefix":
            text += self.row(root, b"elsewhere/stranger", Version(1, b"?", {}), True)
        elif lie == "malformed":
            text += "<Contents><Key>broken</Contents></Key>"
        elif lie == "entity":
            text += "<Contents><Key>&xxe;</Key></Contents>"
        elif lie == "deep":
            text += "<a>" * 100000 + "</a>" * 100000
        text = open_root + text + element("IsTruncated", str(bool(more)).lower()) + (more or "")
        if lie != "unfinished":
            text += close_root
        if lie == "dtd":
            text = ('<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
                    '<!ENTITY xxe SYSTEM "file:///etc/passwd">]>') + text
        if lie == "endless":
            self.later = lambda: self.endless(open_root)
        else:
            self.reply(200, HEAD + text.encode(), [("Content-Type", "application/xml")])

    def endless(self, start):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(HEAD + start.encode())
        row = b"".join(self.row("ListBucketResult", f"endless{n}".encode(), Version(1, b"?", {}), True).encode()
                       for n in range(1000))
        for _ in range(ENDLESS_LIMIT // len(row)):
            self.wfile.write(row)

    # ---- objects

    def conditions_fail(self, key):
        version = STORE.find(key, "")
        current = version.etag if version and version.body is not None else None
        wanted = self.headers.get("If-Match")
        return (self.headers.get("If-None-Match") == "*" and current) or (wanted and wanted.strip('"') != current)

    def meta(self):
        return {name.lower(): value for name, value in self.headers.items()
                if name.lower().startswith("x-amz-meta-") or name.lower() == "content-type"}

    def put_object(self, key, query, body):
        source = self.headers.get("x-amz-copy-source")
        if "uploadId" in query or "partNumber" in query:
            return self.refuse(501, "NotImplemented")
        conditional = "If-Match" in self.headers or "If-None-Match" in self.headers
        if conditional and STORE.conditions == "refused":
            return self.refuse(501, "NotImplemented")
        if conditional and STORE.conditions == "busy":
            return self.refuse(503, "SlowDown")
        if STORE.conditions == "honoured" and self.conditions_fail(key):
            return self.refuse(412, "PreconditionFailed")
        if source:
            path, _, version_id = source.lstrip("/").partition("?versionId=")
            version = STORE.find(urllib.parse.unquote_to_bytes(path.partition("/")[2]), version_id)
            if not version or version.body is None:
                return self.refuse(404, "NoSuchKey")
            body = version.body
        version = STORE.add(key, body, self.meta())
        headers = [("ETag", f'"{version.etag}"'), ("x-amz-version-id", version.id)]
        text = HEAD + f"<CopyObjectResult>{element('ETag', version.etag)}</CopyObjectResult>".encode() if source else b""
        return self.reply(200, text, headers)

    def delete_object(self, key, query, _body):
        if "versionId" in query:
            STORE.erase(key, query["versionId"])
            return self.reply(204)
        marker = STORE.add(key, None, {})
        return self.reply(204, b"", [("x-amz-version-id", marker.id), ("x-amz-delete-marker", "true")])

    def head_object(self, key, query, body):
        self.get_object(key, query, body)

    def get_object(self, key, query, _body):
        version = STORE.find(key, query.get("versionId", ""))
        if not version or version.body is None:
            return self.refuse(404, "NoSuchKey")
        wanted = self.headers.get("If-Match")
        if wanted and wanted.strip('"') != version.etag:
            return self.refuse(412, "PreconditionFailed")
        first, last, total = 0, len(version.body) - 1, len(version.body)
        asked = self.headers.get("Range")
        if asked and total:
            start, _, end = asked.partition("=")[2].partition("-")
            first, last = int(start), min(int(end or total), total - 1)
        headers = [("ETag", f'"{version.etag}"'), ("x-amz-version-id", version.id), ("Accept-Ranges", "bytes"),
                   ("Last-Modified", email.utils.formatdate(version.time, usegmt=True)), *version.meta.items()]
        lie = STORE.lie[0] if self.command == "GET" and STORE.lie[1] == key else ""
        if lie:
            return self.lie(lie, version, headers, (first, last, bool(asked)))
        if asked and total:
            headers.append(("Content-Range", f"bytes {first}-{last}/{total}"))
        return self.reply(206 if asked and total else 200, version.body[first:last + 1], headers)

    def lie(self, kind, version, headers, span):
        first, last, asked = span
        total, body = len(version.body), bytearray(version.body[first:last + 1])
        promised = len(body)
        if kind == "flip":
            body[len(body) // 2] ^= 0x10
        elif kind == "short":
            body = body[:-7]
            promised -= 7
        elif kind == "long":
            body += b"surplus"
            promised += 7
        elif kind == "empty":
            body, promised = b"", 0
        elif kind == "cut":
            body = body[:-7]
            self.close_connection = True
        elif kind == "other-object":
            headers[0] = ("ETag", '"' + hashlib.md5(b"other").hexdigest() + '"')
            headers[1] = ("x-amz-version-id", "99999999")
            body = bytes(len(body))
        elif kind == "whole":
            body, promised, asked = version.body, total, False
        elif kind == "other-range" and asked:
            step = first if first < len(body) else len(body)
            step = step or -min(len(body) // 2, total - last - 1)
            first, last = first - step, last - step
            body = version.body[first:last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            headers.append(("Content-Range", f"bytes {first}-{last}/{total}"))
        for name, value in headers + [("Content-Length", str(promised))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(bytes(body))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # who is lied to may hang up
            super().handle_error(request, client_address)


def main():
    server = Server(("127.0.0.1", 0), Handler)
    with open(sys.argv[1] + ".new", "w", encoding="ascii") as file:
        file.write(f"http://127.0.0.1:{server.server_address[1]}")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
