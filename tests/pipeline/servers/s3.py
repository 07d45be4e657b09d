"""What S3 does with a request: its errors as XML, and SigV4 computed again by botocore's own signer."""

from __future__ import annotations

import hmac
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from servers.loopback import Reply, Request


class _Signer(S3SigV4Auth):
    """Signs just the headers that a request says it signed; botocore's clients leave the user agent out."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        found = HTTPHeaders()
        for name, value in request.headers.items():
            found[name.lower()] = value
        return found


def signed_by(request: Request, secret: str, token: str, region: str) -> bool:
    """Whether the request's signature is the one that botocore computes with these keys."""
    header = request.headers["authorization"]
    names = header.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    copy = AWSRequest(
        method=request.method,
        url=f"http://{request.headers['host']}{quote(request.path)}",
        headers={name: request.headers[name] for name in names},
    )
    copy.context["timestamp"] = request.headers["x-amz-date"]
    key = header.partition("Credential=")[2].partition("/")[0]
    signer = _Signer(Credentials(key, secret, token), "s3", region)
    words = signer.string_to_sign(copy, signer.canonical_request(copy))
    return hmac.compare_digest(signer.signature(words, copy), header.partition("Signature=")[2])


def xml_error(code: str, words: str, status: int = 403) -> Reply:
    """An error as S3 words it."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{words}</Message></Error>'
    return Reply(body=body.encode(), status=status, headers={"Content-Type": "application/xml"})
