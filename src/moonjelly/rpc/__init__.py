"""The wire: generated stubs, and the conversion between them and domain types."""
