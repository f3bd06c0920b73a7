"""What payment providers tell us by webhook: verified, stored first, acted on in any order."""
