"""What a request gets instead of an answer: a status and a sentence, as RFC 9457 has them."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from steelshift.messages import say

PROBLEM = "application/problem+json"


class Refusal(Exception):
    """A request that is not answered; `key` names a sentence of the catalogue, `fields` fill it in."""

    def __init__(self, key: str, status: int, /, headers: Mapping[str, str] | None = None, **fields: object) -> None:
        self.status = status
        self.headers = dict(headers or {})
        self.key = key
        self.fields = fields
        super().__init__(key)


def body_of(status: int, sentence: str) -> bytes:
    """The document; its type is about:blank, so its title is the name of the status."""
    facts: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": sentence}
    return json.dumps(facts, ensure_ascii=False).encode()


def response(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body_of(status, sentence), status, dict(headers or {}), PROBLEM)


def answer(refusal: Refusal) -> Response:
    """In the language of the request: what is said is found here and not where it was raised."""
    return response(refusal.status, say(refusal.key, **refusal.fields), refusal.headers)
