"""What survives a crash: settings and messages, as bytes and numbers. See store.journal for the contract."""
