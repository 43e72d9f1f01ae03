"""What several pages show or ask for: headroom, limits, names, the head line, the parameters of a range."""
