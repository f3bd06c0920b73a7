"""What is unusual in usage and service, episode by episode."""
