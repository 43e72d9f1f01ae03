"""Amazon Bedrock: the preset, and AWS access keys, with which every request is signed."""
