"""An invoice as a page that people read: a pure function of its document."""
