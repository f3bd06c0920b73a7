"""What people are told unasked: alerts, notifications, what capacity costs against what it earns."""
