"""Explains bytes of the VMBus field by field: channel messages, ring packets, ring images, message pages, captures."""
