"""Sign-ins under way: a record each in the state store, so that any worker answers and a crash loses no spent code."""
