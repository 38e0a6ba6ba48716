"""The gateway: links, bridges and routes between this broker and others. Knows `broker` and `protocols`."""
