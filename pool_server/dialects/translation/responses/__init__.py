"""OpenAI Responses to the neutral form and back, and the ChatGPT backend's rules."""
