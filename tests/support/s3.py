#!/usr/bin/env python3
"""An S3 client that shares nothing with varve: what tests put into a bucket and look at there.

    s3.py BUCKET make [versioned|locking]
    s3.py BUCKET versioning STATE           Enabled or Suspended
    s3.py BUCKET put KEY [NAME=VALUE...]    the body is standard input, NAME=VALUE its user metadata, :NAME=VALUE a
                                            header
    s3.py BUCKET meta KEY                   ":content-type=VALUE" and NAME=VALUE of its user metadata, sorted, one a line
    s3.py BUCKET get KEY [VERSION]          to standard output
    s3.py BUCKET delete KEY [VERSION]
    s3.py BUCKET lock KEY VERSION           sets a legal hold
    s3.py BUCKET hold KEY VERSION           ON or OFF
    s3.py BUCKET retention KEY VERSION      "MODE TIME"
    s3.py BUCKET keys                       of current objects outside .varve/, sorted, one a line
    s3.py BUCKET reserved                   the same within .varve/
    s3.py BUCKET etags                      "KEY ETAG" of current objects outside .varve/ that are no directories
    s3.py BUCKET versions KEY               "ID data|marker SIZE", oldest first
    s3.py BUCKET beneath PREFIX             "KEY ID data|marker" of all versions of what begins so, 1,000 at most
    s3.py BUCKET uploads KEY                ids of multipart uploads of the key that nobody ended

Keys are percent-encoded, in and out. The store is VARVE_TEST_S3_ENDPOINT with AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY. Exit status 1 with the store's words on standard error when it refuses.
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
REGION = "us-east-1"


class Refused(SystemExit):
    """The store said no; `status` is HTTP's."""

    def __init__(self, status, words):
        super().__init__(words)
        self.status = status


def quote(text):
    return urllib.parse.quote(text, safe="-_.~")


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def exchange(method, path, query=(), body=b"", meta=(), headers=()):
    """The reply and its body. `path` is percent-encoded; `query` are pairs of decoded strings or bytes."""
    endpoint = urllib.parse.urlsplit(os.environ["VARVE_TEST_S3_ENDPOINT"])
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    query = "&".join(sorted(f"{quote(name)}={quote(value)}" for name, value in query))
    headers = {**dict(headers), "host": endpoint.netloc, "x-amz-date": now,
               "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    headers.update({f"x-amz-meta-{name}": value for name, value in meta})
    names = ";".join(sorted(headers))
    canonical = "\n".join([method, path, query, *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names,
                           headers["x-amz-content-sha256"]])
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in scope.split("/"):
        key = sign(key, part)
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope},"
                                f"SignedHeaders={names},Signature={sign(key, text).hex()}")
    connection = http.client.HTTPConnection(endpoint.hostname, endpoint.port, timeout=60)
    connection.request(method, path + ("?" + query if query else ""), body, headers)
    reply = connection.getresponse()
    answer = reply.read()
    if reply.status >= 300:
        raise Refused(reply.status, f"s3.py: {method} {path}?{query}: {reply.status} {answer.decode(errors='replace')}")
    return reply, answer


def request(*arguments, **more):
    return exchange(*arguments, **more)[1]


def path_of(bucket, key):
    return f"/{bucket}/" + urllib.parse.quote(urllib.parse.unquote_to_bytes(key), safe="/-_.~")


def text_of(element, name):
    return element.findtext(NAMESPACE + name) or ""


def listed(bucket):
    """(key, etag), keys percent-encoded, in their order."""
    token, found = "", []
    while True:
        query = [("list-type", "2"), ("encoding-type", "url")] + ([("continuation-token", token)] if token else [])
        root = ElementTree.fromstring(request("GET", f"/{bucket}", query))
        for element in root.iter(NAMESPACE + "Contents"):
            key = urllib.parse.unquote_to_bytes(text_of(element, "Key").replace("+", " "))
            found.append((urllib.parse.quote(key, safe="/-_.~"), text_of(element, "ETag").strip('"')))
        token = text_of(root, "NextContinuationToken")
        if not token:
            return sorted(found)


def versions(bucket, key):
    """(id, kind, size), newest first, as the store lists them."""
    wanted = urllib.parse.unquote_to_bytes(key)
    root = ElementTree.fromstring(request("GET", f"/{bucket}", [("versions", ""), ("prefix", wanted),
                                                                ("encoding-type", "url")]))
    for element in root:
        if element.tag not in (NAMESPACE + "Version", NAMESPACE + "DeleteMarker"):
            continue
        if urllib.parse.unquote_to_bytes(text_of(element, "Key").replace("+", " ")) == wanted:
            kind = "data" if element.tag.endswith("}Version") else "marker"
            yield text_of(element, "VersionId"), kind, text_of(element, "Size") or "0"


def beneath(bucket, prefix):
    """(key, id, kind) of every version whose key begins with the prefix."""
    root = ElementTree.fromstring(request("GET", f"/{bucket}", [("versions", ""), ("prefix", prefix)]))
    for element in root:
        if element.tag in (NAMESPACE + "Version", NAMESPACE + "DeleteMarker"):
            kind = "data" if element.tag.endswith("}Version") else "marker"
            yield text_of(element, "Key"), text_of(element, "VersionId"), kind


def all_versions(bucket):
    """(key, id, etag) of every object version, keys percent-encoded."""
    markers, found = [], []
    while True:
        root = ElementTree.fromstring(request("GET", f"/{bucket}", [("versions", ""), ("encoding-type", "url"), *markers]))
        for element in root.iter(NAMESPACE + "Version"):
            key = urllib.parse.unquote_to_bytes(text_of(element, "Key").replace("+", " "))
            found.append((urllib.parse.quote(key, safe="/-_.~"), text_of(element, "VersionId"),
                          text_of(element, "ETag").strip('"')))
        if text_of(root, "IsTruncated") != "true":
            return found
        markers = [("key-marker", urllib.parse.unquote_to_bytes(text_of(root, "NextKeyMarker").replace("+", " "))),
                   ("version-id-marker", text_of(root, "NextVersionIdMarker"))]


def set_versioning(bucket, state):
    request("PUT", f"/{bucket}", [("versioning", "")],
            f"<VersioningConfiguration><Status>{state}</Status></VersioningConfiguration>".encode())


def main():
    bucket, verb, *rest = sys.argv[1:]
    if verb == "make":
        request("PUT", f"/{bucket}", headers=[("x-amz-bucket-object-lock-enabled", "true")] * (rest == ["locking"]))
        if rest == ["versioned"]:
            set_versioning(bucket, "Enabled")
    elif verb == "versioning":
        set_versioning(bucket, rest[0])
    elif verb == "put":
        said = [pair.split("=", 1) for pair in rest[1:]]
        request("PUT", path_of(bucket, rest[0]), body=sys.stdin.buffer.read(),
                meta=[pair for pair in said if pair[0][0] != ":"],
                headers=[(name[1:], value) for name, value in said if name[0] == ":"])
    elif verb == "meta":
        reply, _ = exchange("HEAD", path_of(bucket, rest[0]))
        said = {name.lower().removeprefix("x-amz-meta-"): value for name, value in reply.getheaders()
                if name.lower().startswith("x-amz-meta-")}
        said[":content-type"] = reply.getheader("content-type")
        print(*sorted(f"{name}={value}" for name, value in said.items()), sep="\n")
    elif verb == "get":
        query = [("versionId", rest[1])] if len(rest) > 1 else []
        sys.stdout.buffer.write(request("GET", path_of(bucket, rest[0]), query))
    elif verb == "delete":
        request("DELETE", path_of(bucket, rest[0]), [("versionId", rest[1])] if len(rest) > 1 else [])
    elif verb == "lock":
        body = b"<LegalHold><Status>ON</Status></LegalHold>"
        request("PUT", path_of(bucket, rest[0]), [("versionId", rest[1]), ("legal-hold", "")], body,
                headers=[("content-md5", base64.b64encode(hashlib.md5(body).digest()).decode())])
    elif verb in ("hold", "retention"):
        root = ElementTree.fromstring(request("GET", path_of(bucket, rest[0]), [
            ("versionId", rest[1]), ("legal-hold" if verb == "hold" else "retention", "")]))
        print(*(element.text for element in root))
    elif verb in ("keys", "reserved"):
        for key, _ in listed(bucket):
            if key.startswith(".varve/") == (verb == "reserved"):
                print(key)
    elif verb == "etags":
        for key, etag in listed(bucket):
            if not key.startswith(".varve/") and not key.endswith("/"):
                print(key, etag)
    elif verb == "versions":
        for row in reversed(list(versions(bucket, rest[0]))):
            print(*row)
    elif verb == "beneath":
        for found in beneath(bucket, rest[0]):
            print(*found)
    elif verb == "uploads":
        root = ElementTree.fromstring(request("GET", f"/{bucket}", [("uploads", ""), ("prefix", rest[0])]))
        for element in root.iter(NAMESPACE + "Upload"):
            if text_of(element, "Key") == rest[0]:
                print(text_of(element, "UploadId"))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
