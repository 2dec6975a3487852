"""The one name that says where Penstock keeps what it keeps."""

#: The environment variable: runs, models, caches and hosts lie in the folder it names.
HOME = "PENSTOCK_HOME"
