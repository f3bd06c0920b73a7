"""Double entry: what every movement of money means for the accounts of the business."""
