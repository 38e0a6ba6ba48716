"""Payloads of MQTT and the model's bodies (TRANSLATION.md, section 2).

A payload that is said to be UTF-8, and is of no other type than text, is text. Maps and lists of others are JSON, and
`x-opt-body` says which; what JSON cannot say is in AMQP 1.0's own encoding, of type `application/vnd.amqp`.
"""

from __future__ import annotations

from typing import Any, Final

from broker.values import Byte, Int
from broker.view import BYTES, NOTHING, SEQUENCES, VALUE, View
from protocols import values10
from protocols.bodies import BODY, CONTENT_TYPE, DATA_LENGTHS, JMS_TYPE
from protocols.mqtt.properties import Properties
from protocols.mqtt.texts import from_json, to_json
from protocols.side_headers import RAW, is_text

JSON: Final = "application/json"
AMQP: Final = "application/vnd.amqp"

BODY_TYPES: Final = "x-opt-body-types"
"""The user property with the types in a payload that is JSON (texts.py)."""
PAYLOAD_FORMAT: Final = "x-opt-mqtt-payload-format"
"""The annotation that keeps a payload format indicator, or null for none, where another would be written."""

_KINDS: Final = {"map": dict, "list": list, "sequence": list, "sequences": list}


# To the model.


def read_payload(view: View, headers: dict[str, Any], p: Properties, body: list[bytes]) -> None:
    """Fill the view's body, taking out of the headers what is about it. Its content type is there already."""
    view.body = body
    marker = headers.get(BODY)
    if type(marker) is str and _read_marked(view, marker, headers, p, body):
        return
    content_type = view.content_type
    if p.payload_format != 0:
        if content_type == AMQP and p.payload_format < 0 and _read_amqp(view, b"".join(body)):
            _own_type(view, headers)
            return
        if _may_be_text(headers) and (is_textual(content_type) or content_type is None and p.payload_format == 1
                                      and p.content_type is None):
            try:
                view.value = b"".join(body).decode("utf-8")
                view.kind, view.body = VALUE, []
                if JMS_TYPE not in headers:
                    view.annotations[JMS_TYPE] = Byte(5)
            except UnicodeDecodeError:
                pass
    text = view.kind == VALUE
    if p.payload_format < 0:
        if text:
            view.annotations[PAYLOAD_FORMAT] = None
    elif not text and (p.payload_format == 1 or not _pretends(view, headers)):
        view.annotations[PAYLOAD_FORMAT] = Int(p.payload_format)
    lengths = headers.get(DATA_LENGTHS)
    if not text and isinstance(lengths, list) and len(lengths) > 1 and all(
            type(length) is int and length >= 0 for length in lengths) and sum(lengths) == sum(map(len, body)):
        view.data_lengths = lengths
        del headers[DATA_LENGTHS]


def _may_be_text(annotations: dict[str, Any]) -> bool:
    """Whether it is not said to be a message of another kind, for JMS."""
    kind = annotations.get(JMS_TYPE)
    return type(kind) is not Byte or kind == 5


def is_textual(content_type: str | None) -> bool:
    """Whether it is text in UTF-8."""
    if content_type is None:
        return False
    main, _, parameters = content_type.partition(";")
    if not main.strip().lower().startswith("text/"):
        return False
    charset = parameters.lower().replace(" ", "").replace('"', "")
    return "charset=" not in charset or charset.split("charset=")[1].split(";")[0] in ("utf-8", "utf8", "us-ascii")


def _read_marked(view: View, marker: str, headers: dict[str, Any], p: Properties, body: list[bytes]) -> bool:
    """Whether the body is what its marker says, and was read so."""
    if marker in ("null", "none"):
        if any(body) or p.payload_format >= 0:
            return False
        view.kind, view.value, view.body = VALUE if marker == "null" else NOTHING, None, []
        del headers[BODY]
        return True
    data = b"".join(body)
    try:
        if marker == "text" and p.payload_format == 1:
            view.value = data.decode("utf-8")
        elif view.content_type == JSON and p.payload_format == 1:
            types = headers.get(BODY_TYPES, "")
            value = from_json(data.decode("utf-8"), types if type(types) is str else "[]")
            if type(value) is not _KINDS.get(marker, type(value)) or marker == "value" and not _is_scalar(value):
                return False
            view.value = [value] if marker == "sequence" else value
        elif view.content_type == AMQP and marker in ("sequence", "sequences") and p.payload_format < 0:
            value = values10.decode(data)
            view.value = [value] if marker == "sequence" else value
        else:
            return False
    except (ValueError, values10.Malformed):
        return False
    sequences = marker in ("sequence", "sequences")
    if sequences and not _are_sequences(view.value, marker):
        view.value = None
        return False
    view.kind, view.body = SEQUENCES if sequences else VALUE, []
    del headers[BODY]
    if marker != "text":
        headers.pop(BODY_TYPES, None)
        _own_type(view, headers)
    return True


def _read_amqp(view: View, data: bytes) -> bool:
    """A single value in 1.0's encoding, if it is one that is written so."""
    try:
        value = values10.decode(data)
    except values10.Malformed:
        return False
    if _as_json(value) or type(value) is str or value is None or values10.encode(value) != data:
        return False
    view.kind, view.value, view.body = VALUE, value, []
    return True


def _own_type(view: View, headers: dict[str, Any]) -> None:
    """The content type was ours; the message's own, if it had one, was kept."""
    own = headers.get(CONTENT_TYPE)
    view.content_type = headers.pop(CONTENT_TYPE) if type(own) is str else None


def _are_sequences(value: Any, marker: str) -> bool:
    return type(value) is list and all(type(each) is list for each in value) and (
        len(value) == 1 if marker == "sequence" else len(value) != 1)


def _is_scalar(value: Any) -> bool:
    return value is not None and type(value) not in (str, list, dict)


# From the model.


def write_payload(view: View, kept: dict[str, Any], annotations: dict[str, Any], p: Properties) -> tuple[
        list[bytes], str | None]:
    """The payload in pieces, and the content type that goes with it. Adds to `kept` what the way back needs."""
    if view.kind == BYTES:
        return _write_bytes(view, kept, annotations, p), view.content_type
    value = view.value
    if view.kind == NOTHING or value is None:
        kept[BODY] = "none" if view.kind == NOTHING else "null"
        return [], view.content_type
    if view.kind == SEQUENCES:
        marker = "sequence" if len(value) == 1 else "sequences"
        value = value[0] if len(value) == 1 else value
    elif type(value) is str and values10.is_text(value):
        return [value.encode("utf-8")], _write_text(view, kept, annotations, p)
    else:
        marker = "map" if type(value) is dict else "list" if type(value) is list else "value"
    if view.content_type is not None:
        kept[CONTENT_TYPE] = view.content_type
    written = _as_json(value)
    if written is None:
        if view.kind == SEQUENCES:
            kept[BODY] = marker
        return [values10.encode(value)], AMQP
    kept[BODY] = marker
    if written[1]:
        kept[BODY_TYPES] = written[1]
    p.payload_format = 1
    return [written[0].encode("utf-8")], JSON


def _as_json(value: Any) -> tuple[str, str] | None:
    """JSON and types; None for what is better written as AMQP 1.0 does."""
    try:
        text, types = to_json(value)
    except ValueError:
        return None
    return None if types in ('{"":"amqp"}', '{"":"binary"}') else (text, types)


def _write_bytes(view: View, kept: dict[str, Any], annotations: dict[str, Any], p: Properties) -> list[bytes]:
    if view.data_lengths:
        kept[DATA_LENGTHS] = list(view.data_lengths)
    former = annotations.get(PAYLOAD_FORMAT)
    if type(former) is Int and (former == 0 or former == 1 and not _is_text(view, annotations)):
        p.payload_format = int(former)
        del annotations[PAYLOAD_FORMAT]
    elif _pretends(view, annotations):
        p.payload_format = 0
    return view.body


def _is_text(view: View, annotations: dict[str, Any]) -> bool:
    """Whether bytes that are said to be UTF-8 would be taken for text."""
    content_type = view.content_type
    untyped = content_type is None and RAW + "content-type" not in annotations
    return _may_be_text(annotations) and (untyped or is_textual(content_type)) and _is_utf8(view.body)


def _write_text(view: View, kept: dict[str, Any], annotations: dict[str, Any], p: Properties) -> str | None:
    p.payload_format = 1
    textual = is_textual(view.content_type)
    if JMS_TYPE not in annotations or not _may_be_text(annotations) or view.content_type is not None and not textual:
        kept[BODY] = "text"
        return view.content_type
    if type(annotations[JMS_TYPE]) is Byte:
        del annotations[JMS_TYPE]
    if textual and PAYLOAD_FORMAT in annotations and annotations[PAYLOAD_FORMAT] is None:
        p.payload_format = -1
        del annotations[PAYLOAD_FORMAT]
    return view.content_type


def _pretends(view: View, annotations: dict[str, Any]) -> bool:
    """Whether bytes would be taken for something else, because their content type says so."""
    content_type = view.content_type
    if content_type == AMQP:
        return _read_amqp(View(), b"".join(view.body))
    return is_textual(content_type) and _may_be_text(annotations) and _is_utf8(view.body)


def _is_utf8(body: list[bytes]) -> bool:
    return is_text(b"".join(body))
