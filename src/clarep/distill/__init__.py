"""CaDistill and its rivals: students, losses, and one trainer for all methods."""
