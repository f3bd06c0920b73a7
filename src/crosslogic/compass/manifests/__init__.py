"""From a plan of a deployment to the files that run it: pure rendering, nothing is sent anywhere."""
