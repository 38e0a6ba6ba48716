"""QMF, Qpid's management protocol: an agent inside the broker, which answers messages with messages."""
