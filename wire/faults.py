"""The errors of a call, and how those of the libraries become ours."""

import errno
import http.client
import re
import socket
from collections.abc import Iterator


class HungUp(Exception):
    """We hung up the call."""


class Fault(Exception):
    """The call failed. `kind` says how: a key of the table `wire` in `providers/faults.toml`.
    `detail` is the library's message, for the log. If the server cannot be reached, `reason` may
    say why: `refused`, `unknown_host`, `no_tls` or `proxy`."""

    def __init__(self, kind: str, detail: str = "", reason: str = "") -> None:
        super().__init__(f"{kind} {detail}".strip())
        self.kind, self.detail, self.reason = kind, detail, reason


class TunnelRefused(OSError):
    """A proxy refused to connect to the server."""

    def __init__(self, status: int) -> None:
        super().__init__(f"The proxy refuses a tunnel with status {status}")
        self.status = status


# What a request may raise. The errors of requests are OSErrors. A ValueError is an invalid URL,
# header or certificate.
RAW_FAULTS = (OSError, http.client.HTTPException, ValueError)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)  # file descriptors, memory
# What no further try can mend. The files are those with certificates; that one contains none,
# OpenSSL says only in its message.
_MISCONFIGURED = (ValueError, FileNotFoundError, PermissionError)
_NO_CERTIFICATE = re.compile("NO_CERTIFICATE_OR_CRL_FOUND|PEM lib")
_NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}


def fault_of(error: Exception, has_answered: bool) -> Fault:
    """The Fault for this error of a library. `has_answered`: a response has begun."""
    causes = [*_causes(error)]
    if exhausted := next(filter(_is_exhausted, causes), None):
        return Fault("exhausted", str(exhausted))
    if has_answered:
        return Fault("broken", str(error))
    if wrong := next(filter(_is_misconfigured, causes), None):
        return Fault("misconfigured", str(wrong))
    return Fault("unreachable", str(error), _reason(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, http.client.HTTPException):
            return  # its cause is a detail of parsing, not another reason
        error = error.__cause__ or error.__context__


def _is_exhausted(error: BaseException) -> bool:
    return getattr(error, "errno", None) in _EXHAUSTED


def _is_misconfigured(error: BaseException) -> bool:
    if isinstance(error, TunnelRefused):
        return error.status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
    return isinstance(error, _MISCONFIGURED) or bool(_NO_CERTIFICATE.search(str(error)))


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, socket.gaierror):
        return "unknown_host"
    return "no_tls" if getattr(error, "reason", None) in _NO_TLS else ""
