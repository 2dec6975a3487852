"""What a host leaves in its state folder for its supervisor and for commands."""

STATUS = "status.json"
CRASHES = "crashes.json"
MARKERS = "markers"
