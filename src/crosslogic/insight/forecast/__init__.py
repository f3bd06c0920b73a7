"""What will be used, what that takes, and when what there is will be too little."""
