"""What another broker has, read from its definitions or from itself, as a plan of what is to be made here."""
