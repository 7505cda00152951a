"""Separates errors of the network, which may pass, from all others. The libraries that raise them are not imported."""

import errno
from collections.abc import Iterator

# errors of connections and timeouts, by the library that raises them; a subclass counts as well
TRANSPORT_ERRORS = {
    "builtins": {"ConnectionError", "TimeoutError"},
    "socket": {"gaierror", "herror"},
    "ssl": {"SSLError"},
    "http": {"HTTPException"},
    "urllib": {"URLError", "ContentTooShortError"},
    "urllib3": {"HTTPError"},
    "requests": {"ConnectionError", "Timeout", "ChunkedEncodingError", "ContentDecodingError"},
    "httpx": {"TransportError"},
    "httpx2": {"TransportError"},
    "httpcore": {"NetworkError", "TimeoutException", "ProtocolError", "ProxyError"},
    "aiohttp": {"ClientConnectionError", "ClientPayloadError", "ServerTimeoutError"},
    "fsspec": {"FSTimeoutError"},
    "botocore": {"ConnectionError", "HTTPClientError"},
}
# errors that are subclasses of those above, but stay until a person changes something
LASTING_ERRORS = {"OfflineModeIsEnabled", "SSLCertVerificationError", "UnsupportedProtocol", "LocationValueError"}
LASTING_ERRORS |= {"InvalidSchema", "InvalidURL", "InvalidProxyURL", "MissingSchema"}
PASSING_ERRNOS = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EPIPE", "ESHUTDOWN", "ENOTCONN", "ETIMEDOUT"),
        *("ENETDOWN", "ENETRESET", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ESTALE", "EIO", "EREMOTEIO", "ENOLINK", "ECOMM", "EAGAIN", "EBUSY"),  # network file systems
    )
    if hasattr(errno, name)
}
PASSING_STATUSES = {408, 425, 429}  # and 500 to 599: request timeout, too early, too many requests, server errors


def is_network_error(error: BaseException) -> bool:
    """Return whether an error, or an error that caused it, comes from the network or a server and may pass.

    These are errors of connections and timeouts, HTTP statuses 408, 425, 429 and 5xx, and a file behind a URL that is
    not found, because some file systems report every failure so. Without a network by choice (HF_HUB_OFFLINE) an error
    does not pass.
    """
    chain = list(_causes(error))
    if any(LASTING_ERRORS & {cls.__name__ for cls in type(one).__mro__} for one in chain):
        return False
    if any(name in str(one) for one in chain for name in LASTING_ERRORS):  # `datasets` keeps the name alone
        return False
    return any(map(_passes, chain))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and all errors that led to it, also those that `raise ... from None` hides."""
    pending, seen = [error], set[int]()
    while pending:
        one = pending.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            pending += [cause for cause in (one.__cause__, one.__context__) if cause is not None]


def _passes(error: BaseException) -> bool:
    """Return whether one error is of the kinds of `is_network_error`, without its causes."""
    status = http_status(error)
    if status is not None:
        return status in PASSING_STATUSES or 500 <= status < 600
    if isinstance(error, FileNotFoundError):
        return "://" in str(error)
    if isinstance(error, OSError) and error.errno in PASSING_ERRNOS:
        return True
    return any(
        cls.__name__ in TRANSPORT_ERRORS.get(cls.__module__.partition(".")[0], ()) for cls in type(error).__mro__
    )


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that an error carries, under one of the names of the usual clients; None if it has none.

    The names: response.status_code (requests, httpx, huggingface_hub), status (aiohttp), code (urllib, gcsfs).
    """
    response = getattr(error, "response", None)
    for holder, name in ((response, "status_code"), (response, "status"), (error, "status"), (error, "code")):
        value = getattr(holder, name, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value
    return None
