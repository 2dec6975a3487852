"""What a host leaves in its state folder for its supervisor and for commands."""

STATUS = "status.json"
CRASHES = "crashes.json"
MARKERS = "markers"
#: Touched by who wants the status as it is now.
ASKED = "status.asked"
