"""The stylesheet, scripts and templates: where they are, held in memory, served."""
