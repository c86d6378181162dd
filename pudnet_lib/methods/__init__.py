"""Methods that PudNet is compared with, one file a method."""
