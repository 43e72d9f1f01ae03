"""Keys of other pools that go on working here."""
