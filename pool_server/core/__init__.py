"""Settings, closed vocabularies and plain values that every room shares."""
