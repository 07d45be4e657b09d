"""Why an address cannot be read, in words: obstore says it in Rust's, with the address and its secrets inside."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from geofm_model.addresses import shown, shown_in
from geofm_model.errors import StoreError

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (profiles are not read), or AWS_SKIP_SIGNATURE=true",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or GOOGLE_SKIP_SIGNATURE=true",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or the name and AZURE_SKIP_SIGNATURE=true",
}
"""What each service asks its environment for; the last of each is for public data."""
_SERVICES = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "azure": "az", "adl": "az", "abfs": "az", "abfss": "az"}
_AGAIN = "; try later, a run goes on where it was"
_HOST = re.compile(r"(?:GET|PUT|HEAD|POST) \w+://(?:[^/?#\s]*@)?([^/?#\s]+)")
_STATUS = re.compile(r"status code: (\d{3}[^:\n]*)")
_CAUSES = (
    (
        r"169\.254\.169\.254|metadata\.google|token request|Missing\w*(?:Key|Account)\b|Account must|OpenCredentials",
        "there are no credentials that can be used: {credentials} for public data",
    ),
    (r"dns error", "there is no host {host}: check how it is spelled, and the network"),
    (r"ConnectionRefused", "nothing listens at {host}: check host and port"),
    (r"TimedOut|kind: Timeout", "{host} does not answer: check host and port, and the network" + _AGAIN),
    (r"[Cc]ertificate|UnknownIssuer", "the certificate of {host} is not trusted: check the address"),
    (r"kind: Connect\b", "{host} cannot be reached: check the address, and the network"),
    (
        r"status code: 401",
        "the server asks for a login (401): give an address that is signed, or of a service (s3://…)",
    ),
    (r"status code: 403", "the server refuses it (403): check credentials, or whether a signed address has run out"),
    (r"Generic S3[\s\S]*BareRedirect", "the bucket is in another region: set AWS_REGION to it"),
    (r"BareRedirect", "the server sends on to another address, but does not say which: ask whose server it is"),
    (r"status code: 5\d\d", "the server fails ({status})" + _AGAIN),
    (r"status code: [34]\d\d", "the server answers {status}: check the address"),
    (r"IncompleteBody|kind: Interrupted|ConnectionReset", "the connection breaks off" + _AGAIN),
)
"""In the order in which they are looked for, since an answer may name several."""


def check_address(address: str) -> None:
    """StoreError for an address of a kind that is not read, or without a place."""
    scheme = address.partition("://")[0].lower()
    if scheme not in ("http", "https", *_SERVICES):
        raise StoreError(f"{shown(address)} begins with {scheme}://: what can be read is https, http, s3, gs and az")
    try:
        place = urlsplit(address).netloc.rpartition("@")[2]
    except ValueError:
        place = "?"  # obstore says what is wrong with it
    if not place:
        raise StoreError(f"{shown(address)} names no {'bucket' if scheme in _SERVICES else 'host'}: add it")


def cause_of(error: Exception, address: str) -> str:
    """What is wrong and what to do, without secrets; `error` is obstore's, or a ValueError of the address itself."""
    text = str(error)
    if type(error) is ValueError:
        return f"this is no address ({text})"
    status, host = _STATUS.search(text), _HOST.search(text)
    for sign, words in _CAUSES:
        if re.search(sign, text):
            return words.format(
                credentials=_CREDENTIALS.get(_SERVICES.get(address.partition("://")[0].lower(), ""), "set them"),
                host=host[1] if host else "the host",
                status=status[1].strip() if status else "an error",
            )
    said = " ".join(text.partition("Debug source")[0].split())
    return shown_in(re.sub(r"^Generic \w+ error: ", "", said))[:200] or "no reason is given"
