"""The certificate the server speaks TLS with: read, judged, and followed while its files change."""
