"""From what somebody says to what they want: extraction of a deployment intent from the turns of a conversation."""
