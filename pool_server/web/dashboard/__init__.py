"""The usage dashboard, its JSON API and its export."""
