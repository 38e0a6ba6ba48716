"""The words of Qpid's access rules: qpidd's, Broker-J's, and a few of our own for what only this broker has."""

from __future__ import annotations

from broker.security.rules import ALL

PERMISSIONS = {"allow": (True, False), "allowlog": (True, True), "deny": (False, False), "denylog": (False, True)}
"""Whether it is allowed, and whether that is logged."""

OBJECTS = {
    "virtualhost": ("access", "create", "delete", "update", "accesslogs", "invoke"),
    "virtualhostnode": ("create", "delete", "update", "invoke"),
    "queue": ("create", "delete", "consume", "purge", "access", "update", "move", "copy", "redirect", "reroute",
              "invoke"),
    "exchange": ("create", "delete", "publish", "bind", "unbind", "access", "update", "invoke"),
    "broker": ("access", "update", "configure", "accesslogs", "shutdown", "invoke"),
    "management": ("access",),
    "method": ("access", "update"),
    "query": ("access",),
    "connection": ("create", "delete", "invoke"),
    "session": ("delete", "invoke"),
    "link": ("create", "delete", "update", "invoke"),
    "bridge": ("create", "delete", "update", "invoke"),
    "user": ("create", "delete", "update", "invoke", "impersonate"),
    "group": ("create", "delete", "update", "invoke"),
}
"""What can be done to each kind of object. Rules may be about more than this broker has."""

ACTIONS = tuple(dict.fromkeys(action for actions in OBJECTS.values() for action in actions))

TEXT = "text"
FLAG = "flag"
NAMES = "names"  # all of those that are changed must be among these
LOW = "low"
HIGH = "high"
MOOT_LIMIT = "moot limit"  # of something that queues here do not have
NETWORK = "network"
HOSTNAME = "hostname"
ADDRESSES = "addresses"  # qpidd's: an address, a name, or the first and the last of a range
LIMIT = "limit"  # no condition, but a limit for those whom the rule is about

PROPERTIES = {
    "name": TEXT, "routingkey": TEXT, "queuename": TEXT, "exchangename": TEXT, "type": TEXT, "alternate": TEXT,
    "policytype": TEXT, "virtualhostname": TEXT, "methodname": TEXT, "schemapackage": TEXT, "schemaclass": TEXT,
    "package": TEXT, "class": TEXT, "username": TEXT, "property": TEXT, "deadletterexchange": TEXT,
    "durable": FLAG, "exclusive": FLAG, "temporary": FLAG, "autodelete": FLAG, "paging": FLAG,
    "passive": FLAG, "exists": FLAG,
    "attributes": NAMES, "attributenames": NAMES,
    "queuemaxsizelowerlimit": LOW, "queuemaxsizeupperlimit": HIGH,
    "queuemaxcountlowerlimit": LOW, "queuemaxcountupperlimit": HIGH,
    **{f"{what}{end}": MOOT_LIMIT for what in ("filemaxsize", "filemaxcount", "pages", "pagefactor")
       for end in ("lowerlimit", "upperlimit")},
    "fromnetwork": NETWORK, "fromhostname": HOSTNAME, "host": ADDRESSES,
    "connectionlimit": LIMIT, "connectionfrequencylimit": LIMIT,
}
"""Properties by canonical name, and what their values are."""

SAME = {"package": "schemapackage", "class": "schemaclass", "attributenames": "attributes"}
"""Two names for one thing."""

UNKNOWABLE = ("owner", "createdby", "component")
"""Properties of Broker-J that nothing here has: a rule about one of them would never do what it says."""


def canonical(word: str) -> str:
    """Case, `_` and `-` make no difference."""
    return word.replace("_", "").replace("-", "").lower()


def check_pair(action: str, object: str) -> None:
    """Raises ValueError, saying what there is, for words that do not go together."""
    if action not in ACTIONS and action != ALL:
        raise ValueError(f"{action!r} is not an action; there are all, {', '.join(ACTIONS)}")
    if object not in OBJECTS and object != ALL:
        raise ValueError(f"{object!r} is not an object; there are all, {', '.join(OBJECTS)}")
    if object != ALL and action != ALL and action not in OBJECTS[object]:
        raise ValueError(f"there is no {action} {object}; of {object} there are all, {', '.join(OBJECTS[object])}")
