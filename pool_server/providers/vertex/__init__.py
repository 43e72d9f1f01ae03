"""Google Vertex AI: a service account that is traded for access tokens; Gemini and Claude at regional hosts."""
