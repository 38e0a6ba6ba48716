"""Bodies of the dialects before 1.0 in the model's terms and back (TRANSLATION.md, section 2).

The content type says what a body is: text, a map, a list; all else is bytes. `x-opt-body` says it where that would
not be enough for the way back, and nothing is made of a body that only pretends.
"""

from __future__ import annotations

from typing import Any

from broker.values import Byte, Symbol
from broker.view import BYTES, NOTHING, SEQUENCES, VALUE, View
from protocols import maps010, typed_bytes, values10

BODY = "x-opt-body"
DATA_LENGTHS = "x-opt-data-lengths"
CONTENT_TYPE = "x-opt-content-type"
"""The message's own content type, where ours says how its body is written."""
JMS_TYPE = "x-opt-jms-msg-type"
"""The message annotation that tells a JMS client which kind of message this is."""
BODY_HEADERS = (BODY, DATA_LENGTHS)

TEXT, MAP, LIST, VALUE_TYPE = "text/plain", "amqp/map", "amqp/list", "amqp/value"
_KINDS = {MAP: "map", LIST: "list", "jms/map-message": "jms-map", "jms/stream-message": "jms-stream",
          "jms/text-message": "text"}
_JMS_TYPES = {"map": 2, "jms-map": 2, "list": 4, "jms-stream": 4, "text": 5}
_JMS_KINDS = {"map": "jms-map", "list": "jms-stream"}

OBJECT, OBJECT_STREAM = "application/x-java-serialized-object", "application/java-object-stream"
"""What the JMS clients of 1.0 and those before call an object of Java, whose bytes are the same."""
FORMER_TYPE = "x-opt-amqp-content-type"
"""The annotation that keeps the older name, as a symbol, which nothing in a field table is by itself."""


def read_body(view: View, headers: dict[str, Any], body: list[bytes]) -> None:
    """Fill the view's body, taking out of the headers what is about it."""
    view.body = body
    marker = headers.get(BODY)
    try:
        if type(marker) is str and _read_marked(view, marker, body):
            del headers[BODY]
            if view.content_type == _OWN_TYPES.get(marker, ""):
                own = headers.get(CONTENT_TYPE)
                view.content_type = headers.pop(CONTENT_TYPE) if type(own) is str else None
        elif view.content_type == OBJECT_STREAM:
            view.content_type = OBJECT
            view.annotations[FORMER_TYPE] = Symbol(OBJECT_STREAM)
        else:
            kind = _kind(view.content_type)
            if kind:
                _read_kind(view, kind, body)
                if JMS_TYPE not in headers:
                    view.annotations[JMS_TYPE] = Byte(_JMS_TYPES[kind])
    except (ValueError, values10.Malformed):
        view.kind = BYTES
        view.body = body
    if view.kind == BYTES:
        lengths = headers.get(DATA_LENGTHS)
        if isinstance(lengths, list) and len(lengths) > 1 and all(
                type(length) is int and length >= 0 for length in lengths) and sum(lengths) == sum(map(len, body)):
            view.data_lengths = lengths
            del headers[DATA_LENGTHS]


_OWN_TYPES = {"text": TEXT, "map": MAP, "list": LIST, "sequence": LIST, "sequences": LIST, "value": VALUE_TYPE,
              "jms-map": "jms/map-message", "jms-stream": "jms/stream-message"}


def _kind(content_type: str | None) -> str:
    if content_type is None:
        return ""
    kind = _KINDS.get(content_type)
    if kind is not None:
        return kind
    main, _, parameters = content_type.partition(";")
    if main.strip().lower().startswith("text/"):
        charset = parameters.lower().replace(" ", "").replace('"', "")
        if "charset=" not in charset or charset.split("charset=")[1].split(";")[0] in ("utf-8", "utf8", "us-ascii"):
            return "text"
    return ""


def _read_kind(view: View, kind: str, body: list[bytes]) -> None:
    """Raises: ValueError."""
    data = b"".join(body)
    if kind == "text":
        view.value = data.decode("utf-8")
    elif kind == "map" or kind == "list":
        if len(data) < 8:
            raise ValueError("without a count, it is empty, but not as we would write it")
        view.value = maps010.read_map(data) if kind == "map" else maps010.read_list(data)
    elif kind == "jms-map":
        view.value = typed_bytes.read_map(data)
    else:
        view.value = typed_bytes.read_stream(data)
    view.kind = VALUE
    view.body = []


def _read_marked(view: View, marker: str, body: list[bytes]) -> bool:
    """Read a body as its marker says. Raises: ValueError, Malformed."""
    if marker in _JMS_TYPES:
        _read_kind(view, marker, body)
    elif marker == "data":
        view.kind = BYTES
    elif marker in ("null", "none") and not any(body):
        view.kind, view.value, view.body = VALUE if marker == "null" else NOTHING, None, []
    elif marker == "value":
        view.value = values10.decode(b"".join(body))
        view.kind, view.body = VALUE, []
    elif marker in ("sequence", "sequences"):
        sequences = values10.decode(b"".join(body)) if view.content_type == VALUE_TYPE else maps010.read_list(
            b"".join(body))
        if marker == "sequence":
            sequences = [sequences]
        if not isinstance(sequences, list) or not all(isinstance(each, list) for each in sequences):
            raise ValueError("no sequences")
        view.kind, view.value, view.body = SEQUENCES, sequences, []
        if view.content_type == VALUE_TYPE:
            view.content_type = LIST  # either is ours
    else:
        return False
    return True


def write_body(view: View, kept: dict[str, Any], annotations: dict[str, Any],
               jms: bool = False) -> tuple[list[bytes], str | None]:
    """The body's bytes in pieces, and the content type that goes with them. Adds to `kept` what the way back needs.

    jms: the reader is one of Qpid's JMS clients before 1.0, who make messages of their own kinds of maps and lists.
    """
    if view.kind == BYTES:
        if view.data_lengths:
            kept[DATA_LENGTHS] = list(view.data_lengths)
        if _pretends(view):
            kept[BODY] = "data"
        former = annotations.get(FORMER_TYPE)
        if type(former) is Symbol and former == OBJECT_STREAM and view.content_type == OBJECT:
            del annotations[FORMER_TYPE]
            return view.body, OBJECT_STREAM
        return view.body, view.content_type
    if view.kind == NOTHING:
        kept[BODY] = "none"
        return [], view.content_type
    if view.kind == SEQUENCES:
        return _write_sequences(view, kept)
    value = view.value
    if value is None:
        kept[BODY] = "null"
        return [], view.content_type
    kind = "text" if type(value) is str else "map" if type(value) is dict else "list" if type(value) is list else ""
    jms_kind = _JMS_KINDS.get(kind, "")
    for each in (jms_kind if jms or _kind(view.content_type) == jms_kind else "", kind):
        if each:
            try:
                data = _write_kind(each, value)
                return [data], _explained(each, view, kept, annotations)
            except ValueError:
                pass  # there is something in it that cannot be said so
    kept[BODY] = "value"
    return [values10.encode(value)], _own_type(VALUE_TYPE, view, kept)


def _pretends(view: View) -> bool:
    """Whether bytes would be taken for something else, because their content type says so."""
    if view.content_type == OBJECT_STREAM:
        return True
    kind = _kind(view.content_type)
    if not kind:
        return False
    try:
        _read_kind(View(), kind, view.body)
    except ValueError:
        return False
    return True


def _write_kind(kind: str, value: Any) -> bytes:
    """Raises: ValueError."""
    if kind == "text":
        return str(value).encode("utf-8")
    if kind == "jms-map":
        return typed_bytes.write_map(value)
    if kind == "jms-stream":
        return typed_bytes.write_stream(value)
    return maps010.write_map(value) if kind == "map" else maps010.write_list(value)


def _explained(kind: str, view: View, kept: dict[str, Any], annotations: dict[str, Any]) -> str | None:
    """The content type of a body that it explains; with a marker, unless all is as the way back assumes."""
    assumed = annotations.get(JMS_TYPE)
    fits = _kind(view.content_type) == kind
    if fits and type(assumed) is Byte and assumed == _JMS_TYPES[kind]:
        del annotations[JMS_TYPE]
        return view.content_type
    kept[BODY] = kind
    if fits and view.content_type != _OWN_TYPES.get(kind):
        return view.content_type
    return _own_type(_OWN_TYPES[kind], view, kept)


def _own_type(content_type: str, view: View, kept: dict[str, Any]) -> str:
    """The content type becomes ours; the message's own, if it has one, is kept."""
    if view.content_type is not None:
        kept[CONTENT_TYPE] = view.content_type
    return content_type


def _write_sequences(view: View, kept: dict[str, Any]) -> tuple[list[bytes], str]:
    """A single one is the list that it is for every reader, several are a list of lists."""
    kept[BODY] = "sequence" if len(view.value) == 1 else "sequences"
    items = view.value[0] if len(view.value) == 1 else view.value
    try:
        return [maps010.write_list(items)], _own_type(LIST, view, kept)
    except ValueError:
        return [values10.encode(items)], _own_type(VALUE_TYPE, view, kept)
