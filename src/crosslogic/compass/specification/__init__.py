"""What a deployment is wanted for, as numbers: shown, edited, validated, stored with its history."""
