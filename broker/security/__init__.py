"""Who may come in, and what they may do: SASL, the sources of users, access rules."""
