"""An inspector over HTTP."""
