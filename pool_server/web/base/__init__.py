"""What all pages share: handler, frame, formatting, labels, static files, live updates."""
