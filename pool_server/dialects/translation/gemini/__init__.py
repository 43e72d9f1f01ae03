"""Gemini's generateContent to the neutral form and back, plain or in Code Assist's envelope."""
