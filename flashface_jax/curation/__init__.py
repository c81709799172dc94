"""From folders of photos of people to a clean, captioned manifest (paper, section 4)."""
