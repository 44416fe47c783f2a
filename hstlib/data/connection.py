"""Connections to servers that cannot be trusted: redirects, time limits, a lowest rate."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from queue import Empty, Queue
from threading import Event, Thread
from urllib.parse import urljoin

import requests

from hstlib.data.sources import hub_token

CHUNK = 1 << 14
"""Bytes per write to disk; a connection that breaks loses fewer."""
TIMEOUT = (20, 60)
"""Time-outs for a connection and for the next bytes, in seconds."""
ANSWER_TIME = 120.0
"""Longest wait for the headers of an answer, redirects included, in seconds."""
PERIOD = 60.0
"""Time over which the rate of a download is measured, in seconds."""
MIN_RATE = 1000
"""Lowest rate of a download, in bytes per second; a slower connection is closed."""
PROGRESS = int(MIN_RATE * PERIOD)
"""Bytes that an attempt must bring to count as progress."""
MAX_REDIRECTS = 10
"""Number of redirects to follow."""
DROPPED = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
"""Errors of a connection that breaks during a download, or of a server that is busy."""


class BusyError(requests.ConnectionError):
    """A server that asks to be asked again later.

    Attributes:
        seconds: Wait that the server asks for, in seconds; 0 if it names none.
    """

    def __init__(self, status: int, seconds: float):
        super().__init__(f"the server is busy (status {status})")
        self.seconds = seconds


class _Session(requests.Session):
    """A session that leaves redirects alone: requests would read their bodies, whatever the size.

    It would also follow a redirect from https to http.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def open_url(url: str, offset: int) -> requests.Response:
    """Request a file from an offset, and wait for the headers of the answer, but not for ever."""
    answers: Queue[requests.Response | Exception] = Queue()

    def ask() -> None:
        try:
            answers.put(_request(url, offset))
        except Exception as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_TIME)
    except Empty:
        raise requests.Timeout(f"no complete answer within {ANSWER_TIME:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _request(url: str, offset: int) -> requests.Response:
    """Request a file from an offset, following redirects, but not from https to anything else."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    for _ in range(MAX_REDIRECTS + 1):
        token = hub_token(url)
        with _Session() as session:
            response = session.get(
                url, headers=headers, auth=_bearer(token) if token else None,
                stream=True, timeout=TIMEOUT, allow_redirects=False,
            )  # fmt: skip
        if not response.is_redirect:
            return response
        response.close()
        target = urljoin(response.url, response.headers["Location"])
        if response.url.startswith("https:") and not target.lower().startswith("https:"):
            raise ValueError(f"leads to {target}, which is not encrypted")
        url = target
    raise requests.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects")


def _bearer(token: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Return what adds a token to a request; a header would give way to ``~/.netrc``."""

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the contents of an answer, and end a connection that is too slow."""
    received, done, slow = 0, Event(), Event()

    def watch() -> None:
        before = 0
        while not done.wait(PERIOD):
            if received - before < PROGRESS:
                slow.set()
                with suppress(ValueError, RuntimeError, OSError):  # it ended in this moment
                    response.raw.shutdown()
                return
            before = received

    Thread(target=watch, daemon=True).start()
    try:
        for chunk in response.iter_content(CHUNK):
            received += len(chunk)
            yield chunk
    except DROPPED:
        if not slow.is_set():
            raise
    finally:
        done.set()
    if slow.is_set():
        raise requests.Timeout(f"fewer than {MIN_RATE:,} bytes/s for {PERIOD:.0f} s")


def span_of(response: requests.Response) -> tuple[int, int]:
    """Return the offset of a response in the file, and the size of the file; 0 if unknown.

    Raises:
        ValueError: If the length of the response is not a number.
    """
    content_range = response.headers.get("Content-Range", "")
    if span := re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", content_range):
        return int(span[1] or 0), int(span[2])
    length = response.headers.get("Content-Length", "0")
    if not re.fullmatch("[0-9]{1,18}", length):  # nobody knows where the answer ends
        raise ValueError(f"the answer's Content-Length is {length!r}, not a number of bytes")
    return 0, int(length)


def retry_after(response: requests.Response) -> float:
    """Return the wait that a server asks for, in seconds; 0 if it names none."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    with suppress(ValueError, OverflowError):
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return 0.0
