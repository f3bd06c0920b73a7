"""`CostTracker` of the interface document: who used what and what it cost, over two kinds of stores."""
