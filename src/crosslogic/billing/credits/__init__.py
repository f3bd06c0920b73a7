"""What an org may use before it pays: grants, and what charges have drawn from them."""
