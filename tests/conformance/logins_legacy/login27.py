"""Logs in once with qpid-python: HOST:PORT MECHANISM USER PASSWORD. Prints "in", or "refused" and why. Python 2.7."""

import sys

from qpid.messaging import Connection
from qpid.messaging.exceptions import MessagingError

address, mechanism, user, password = sys.argv[1:]
try:
    Connection.establish(address, username=user or None, password=password or None, sasl_mechanisms=mechanism,
                         reconnect=False).close()
    print("in")
except MessagingError as error:
    print("refused: " + type(error).__name__ + ": " + str(error))
