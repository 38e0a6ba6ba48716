"""The core: messages, exchanges, queues, transactions, virtual hosts, access control. Knows `store`, and no dialect."""
