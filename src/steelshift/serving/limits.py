"""How much a server takes on before it says no."""

from dataclasses import dataclass

from steelshift.data.decode import MAX_PIXELS

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    body: int = 16 * MEBIBYTE
    """Bytes of one request's body."""
    pixels: int = MAX_PIXELS
    """Of one image."""
    bodies: int = 8
    """Largest bodies that all requests together may hold in memory; more are asked to come again."""
    images: int = 32
    """Of one request."""
    waiting: int = 64
    """Images that wait to be looked at."""
    batch: int = 8
    """Images looked at together."""
    answer: float = 30.0
    """Seconds until a request is given up, waiting included."""
    head: float = 10.0
    """Seconds for the request line and headers to arrive."""
    head_bytes: int = 32 * 1024
    arriving: float = 30.0
    """Seconds for a body to arrive, and for an answer to be taken."""
    idle: int = 60
    """Seconds that a connection is kept between requests."""
    connections: int = 512
    """Open at once."""
